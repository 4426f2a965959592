package gateway

import (
	"math"
	"net/http"
	"strconv"
	"strings"
)

// reads returns how many bytes of a file a request is for at most, by its byte range (RFC 9110 §14, IPIP-402): all without
// one, and 0 if that is not known, such as for a range without an end, which players ask for and leave.
func reads(r *http.Request) uint64 {
	if r.Method != http.MethodGet {
		return 0
	}
	q := r.URL.Query()
	format := q.Get("format")
	if format == "" {
		format, _, _ = strings.Cut(strings.TrimPrefix(r.Header.Get("Accept"), "application/vnd.ipld."), ";")
	}
	switch format {
	case "raw":
		return 0 // one block
	case "car":
		if scope := q.Get("dag-scope"); scope == "block" {
			return 0
		}
		if span := q.Get("entity-bytes"); span != "" {
			from, to, _ := strings.Cut(span, ":")
			return between(from, to)
		}
		return math.MaxUint64
	}
	ranges, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		return math.MaxUint64
	}
	total := uint64(0)
	for one := range strings.SplitSeq(ranges, ",") {
		from, to, _ := strings.Cut(strings.TrimSpace(one), "-")
		if from == "" {
			from = "1" // the last so many
		}
		n := between(from, to)
		if n == 0 || total+n < n {
			return 0
		}
		total += n
	}
	return total
}

// between returns how many bytes there are from one to another, both included; 0 if that is not a number of them.
func between(from, to string) uint64 {
	a, err := strconv.ParseUint(from, 10, 63)
	if err != nil {
		return 0
	}
	b, err := strconv.ParseUint(to, 10, 63)
	if err != nil || b < a {
		return 0
	}
	return b - a + 1
}
