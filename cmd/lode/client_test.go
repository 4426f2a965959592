package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whoever is no node is told from one, and is not listened to for ever.
func TestAnswersOfStrangersAreBounded(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<html>"+strings.Repeat("\xc3\xa4", 1<<20))
		}, "with status 502, not as a node does: is --node right? It says: <html>ää"},
		{"no end", func(w http.ResponseWriter, _ *http.Request) {
			for piece := bytes.Repeat([]byte("1"), 1<<20); ; {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}, "longer than 64 MiB: ask for less"},
	} {
		srv := httptest.NewServer(row.answer)
		var out, talk bytes.Buffer
		code := runContext(context.Background(), []string{"--home", t.TempDir(), "--node", srv.URL, "node", "list"}, &out, &talk)
		srv.Close()
		if code != exitFailed || out.Len() > 0 || !strings.Contains(talk.String(), row.want) || talk.Len() > 500 {
			t.Errorf("%s: exit %d, stdout %q, stderr %.600q; want %q", row.name, code, out.String(), talk.String(), row.want)
		}
	}
}

// A collection that brings nothing says where to look, as one that brings something has no need to.
func TestACollectionOfNothingSaysSo(t *testing.T) {
	if got := (collected{Node: "n", Paid: 1}).word(); got != "" {
		t.Errorf("of a grain: %q", got)
	}
	if got := (collected{Node: "n"}).word(); !strings.Contains(got, "nothing of n was due: `lode node show n`") {
		t.Errorf("of nothing: %q", got)
	}
}
