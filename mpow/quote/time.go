package quote

import (
	"fmt"
	"math"
)

// parseDate reads "2006-01-02T15:04:05Z", as Intel writes dates, as Unix seconds.
func parseDate(s string) (int64, error) {
	if len(s) != 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[19] != 'Z' {
		return 0, fmt.Errorf("date %q: want one like 2006-01-02T15:04:05Z", s)
	}
	return unix(s[0:4], s[5:7], s[8:10], s[11:13], s[14:16], s[17:19])
}

// unix returns the Unix seconds of a date of the Gregorian calendar in UTC, given
// in decimal digits. Leap seconds do not exist.
func unix(year, month, day, hour, minute, second string) (int64, error) {
	var n [6]int64
	for i, s := range []string{year, month, day, hour, minute, second} {
		for _, c := range []byte(s) {
			if c < '0' || c > '9' {
				return 0, fmt.Errorf("date with %q in it", s)
			}
			n[i] = 10*n[i] + int64(c-'0')
		}
	}
	y, m, d := n[0], n[1], n[2]
	if y < 1 || m < 1 || m > 12 || d < 1 || d > daysIn(y, m) || n[3] > 23 || n[4] > 59 || n[5] > 59 {
		return 0, fmt.Errorf("no such date: %s-%s-%s %s:%s:%s", year, month, day, hour, minute, second)
	}
	return days(y, m, d)*86400 + n[3]*3600 + n[4]*60 + n[5], nil
}

// days returns the days from 1970-01-01 to a date of year 1 or later.
func days(y, m, d int64) int64 {
	// Count from 0000-03-01, so that a leap day is the last of its year.
	if m -= 2; m < 1 {
		m, y = m+12, y-1
	}
	const epoch = 719468 // of 1970-01-01
	return 365*y + y/4 - y/100 + y/400 + (153*(m-1)+2)/5 + d - 1 - epoch
}

// FormatDate writes Unix seconds as "2006-01-02T15:04:05Z"; a time outside the
// years 1 to 9999 as its number.
func FormatDate(t int64) string {
	day, sec := t/86400, t%86400
	if sec < 0 {
		day, sec = day-1, sec+86400
	}
	if day < days(1, 1, 1) || day >= days(10_000, 1, 1) {
		return fmt.Sprintf("Unix time %d", t)
	}
	y, m := (day-days(1, 1, 1))/366+1, int64(12) // at most this many years have passed
	for days(y+1, 1, 1) <= day {
		y++
	}
	for days(y, m, 1) > day {
		m--
	}
	return fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02dZ", y, m, day-days(y, m, 1)+1, sec/3600, sec/60%60, sec%60)
}

func daysIn(y, m int64) int64 {
	switch m {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// A span is the time in which all that has been met so far is valid.
type span struct {
	from, until int64  // Unix seconds, both in it
	first, last string // what begins last, what ends first
}

func newSpan() span { return span{from: math.MinInt64, until: math.MaxInt64} }

// meet narrows s to what is valid from one time until another.
func (s *span) meet(what string, from, until int64) {
	if from > s.from {
		s.from, s.first = from, what
	}
	if until < s.until {
		s.until, s.last = until, what
	}
}

// holds returns an error unless t lies in s.
func (s span) holds(t int64) error {
	switch {
	case t < s.from:
		return fmt.Errorf("%s: not valid before %s, it is %s", s.first, FormatDate(s.from), FormatDate(t))
	case t > s.until:
		return fmt.Errorf("%s: not valid after %s, it is %s", s.last, FormatDate(s.until), FormatDate(t))
	}
	return nil
}
