package gateway

import (
	"math"
	"net/http/httptest"
	"testing"
)

func TestReads(t *testing.T) {
	const all = math.MaxUint64
	for _, c := range []struct {
		method, url, accept, span, unless string
		want, from                        uint64
	}{
		{url: "/ipfs/x", want: all},
		{method: "HEAD", url: "/ipfs/x"},
		{url: "/ipfs/x", span: "bytes=0-99", want: 100},
		{url: "/ipfs/x", span: "bytes=700-799", want: 100, from: 700},
		{url: "/ipfs/x", span: "bytes=700-799", unless: `"other"`},
		{url: "/ipfs/x", span: "bytes=5-5, 10-19", want: 11, from: anywhere},
		{url: "/ipfs/x", span: "bytes=-500", want: 500, from: anywhere},
		{url: "/ipfs/x", span: "bytes=100-"},
		{url: "/ipfs/x", span: "bytes=9-5"},
		{url: "/ipfs/x", span: "bytes=-99999999999999999999"},
		{url: "/ipfs/x", span: "bytes=0-9223372036854775806, 0-9223372036854775806, 0-9223372036854775806"},
		{url: "/ipfs/x", span: "lines=1-2", want: all},
		{url: "/ipfs/x?format=tar", span: "bytes=0-99", want: all},
		{url: "/ipfs/x", accept: "text/html, application/x-tar", span: "bytes=700-799", want: all},
		{url: "/ipfs/x?format=tar", accept: "application/vnd.ipld.raw", want: all},
		{url: "/ipfs/x", accept: "text/html, application/vnd.ipld.raw;q=0.9", span: "bytes=0-99"},
		{url: "/ipfs/x", accept: "text/html,*/*;q=0.8", span: "bytes=0-99", want: 100},
		{url: "/ipfs/x?format=raw"},
		{url: "/ipfs/x", accept: "application/vnd.ipld.raw"},
		{url: "/ipfs/x?format=car", want: all},
		{url: "/ipfs/x", accept: "application/vnd.ipld.car; version=1", want: all},
		{url: "/ipfs/x?format=car&dag-scope=block"},
		{url: "/ipfs/x?format=car&dag-scope=entity&entity-bytes=1000:1999", want: 1000, from: anywhere},
		{url: "/ipfs/x?format=car&dag-scope=entity&entity-bytes=1000:*", from: anywhere},
		{url: "/ipfs/x?format=car&dag-scope=entity&entity-bytes=-5:-1", from: anywhere},
	} {
		if c.method == "" {
			c.method = "GET"
		}
		r := httptest.NewRequest(c.method, c.url, nil)
		r.Header.Set("Range", c.span)
		r.Header.Set("Accept", c.accept)
		if c.span == "" {
			r.Header.Del("Range")
		}
		if c.unless != "" {
			r.Header.Set("If-Range", c.unless)
		}
		if from, got := reads(r); got != c.want || from != c.from {
			t.Errorf("%s %s, Accept %q, Range %q: got %d from %d, want %d from %d", c.method, c.url, c.accept, c.span, got, from, c.want, c.from)
		}
	}
}
