package gateway

import (
	"math"
	"net/http"
	"strconv"
	"strings"
)

// anywhere is the offset of bytes that begin where the request does not say.
const anywhere = math.MaxUint64

// reads returns how many bytes of a file a request is for at most, and where the first of them is, by its byte range
// (RFC 9110 §14, IPIP-402): all without one, and 0 if that is not known, such as for a range without an end, which players
// ask for and leave.
func reads(r *http.Request) (from, n uint64) {
	if r.Method != http.MethodGet {
		return 0, 0
	}
	q := r.URL.Query()
	switch formatOf(r) {
	case "raw":
		return 0, 0 // one block
	case "tar":
		return 0, math.MaxUint64 // whole, whatever range is named
	case "car":
		if scope := q.Get("dag-scope"); scope == "block" {
			return 0, 0
		}
		if span := q.Get("entity-bytes"); span != "" {
			from, to, _ := strings.Cut(span, ":")
			return anywhere, between(from, to)
		}
		return 0, math.MaxUint64
	}
	ranges, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		return 0, math.MaxUint64
	}
	if r.Header.Get("If-Range") != "" {
		return 0, 0 // it may be answered with all
	}
	for one := range strings.SplitSeq(ranges, ",") {
		first, last, _ := strings.Cut(strings.TrimSpace(one), "-")
		from = anywhere // of the last so many, and of several ranges
		if at, err := strconv.ParseUint(first, 10, 63); err == nil && one == ranges {
			from = at
		}
		if first == "" {
			first = "1"
		}
		more := between(first, last)
		if more == 0 || n+more < n {
			return 0, 0
		}
		n += more
	}
	return from, n
}

// formatOf returns the format that a request asks for as boxo reads it: by `format`, else by the first type that Accept
// names which is one of a format; empty for none.
func formatOf(r *http.Request) string {
	if format := r.URL.Query().Get("format"); format != "" {
		return format
	}
	for _, header := range r.Header.Values("Accept") {
		for accept := range strings.SplitSeq(header, ",") {
			kind, _, _ := strings.Cut(strings.TrimSpace(accept), ";")
			if format, ok := strings.CutPrefix(kind, "application/vnd.ipld."); ok {
				return format
			}
			if kind == "application/x-tar" {
				return "tar"
			}
		}
	}
	return ""
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
