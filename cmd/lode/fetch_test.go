package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow/quote"
)

// intelServer answers as Intel's service does, with real collateral.
func intelServer(t *testing.T, c quote.Collateral) *httptest.Server {
	t.Helper()
	chain := func(raw []byte) string {
		var b []byte
		for _, x := range [][]byte{raw, quote.IntelRoot()} {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x})...)
		}
		return url.QueryEscape(string(b))
	}
	signed := func(w http.ResponseWriter, header, name string, x quote.Signed) {
		w.Header().Set(header, chain(x.Signer))
		fmt.Fprintf(w, `{"%s":%s,"signature":"%s"}`, name, x.Body, hex.EncodeToString(x.Sig))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sgx/certification/v4/tcb", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("fmspc") != "00A067110000" {
			http.Error(w, "no such platform", http.StatusNotFound)
			return
		}
		signed(w, "TCB-Info-Issuer-Chain", "tcbInfo", c.TCBInfo)
	})
	mux.HandleFunc("GET /sgx/certification/v4/qe/identity", func(w http.ResponseWriter, _ *http.Request) {
		signed(w, "SGX-Enclave-Identity-Issuer-Chain", "enclaveIdentity", c.QEIdentity)
	})
	mux.HandleFunc("GET /sgx/certification/v4/pckcrl", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("ca") != "processor" || r.URL.Query().Get("encoding") != "der" {
			http.Error(w, "which?", http.StatusBadRequest)
			return
		}
		w.Header().Set("SGX-PCK-CRL-Issuer-Chain", chain(c.PCKCA))
		_, _ = w.Write(c.PCKCRL)
	})
	mux.HandleFunc("GET /root.der", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(c.RootCRL) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// TestCollateralIsFetched: what comes from Intel's service is what Intel signed,
// byte by byte, and a real quote passes by it.
func TestCollateralIsFetched(t *testing.T) {
	dir := filepath.FromSlash("../../mpow/quote/testdata/phala")
	b, err := os.ReadFile(filepath.Join(dir, "sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := quote.ParseCollateral(b)
	if err != nil {
		t.Fatal(err)
	}
	srv := intelServer(t, want)
	s := intelService{base: srv.URL, rootCRL: srv.URL + "/root.der", hc: srv.Client()}
	got, err := s.fetch(t.Context(), "00A067110000", "processor")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "sgx_quote"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quote.Verify(raw, got, quote.Trust{Root: quote.IntelRoot(), Time: 1750377600}); err != nil {
		t.Error(err)
	}
	for ca, fmspc := range map[string]string{"processor": "000000000000", "platform": "00A067110000"} {
		if _, err := s.fetch(t.Context(), fmspc, ca); err == nil || !strings.Contains(err.Error(), "40") {
			t.Errorf("%s of CA %s: %v, want the service's refusal", fmspc, ca, err)
		}
	}

	// The command writes what it got, and says that it has ended long ago.
	out := filepath.Join(t.TempDir(), "intel.json")
	var stdout, stderr bytes.Buffer
	args := []string{"collateral", "fetch", "--fmspc", "00a067110000", "--out", out, "--from", srv.URL, "--root-crl", srv.URL + "/root.der"}
	if code := runContext(t.Context(), args, &stdout, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "not valid after") {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
	b, err = os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := quote.ParseCollateral(b); err != nil || !bytes.Equal(mustJSON(t, again), mustJSON(t, want)) {
		t.Errorf("%s has %s, %v", out, b, err)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFetchRefusesWhatIsNoCollateral(t *testing.T) {
	answer := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	defer srv.Close()
	s := intelService{base: srv.URL, rootCRL: srv.URL, hc: srv.Client()}
	for _, row := range []struct{ answer, want string }{
		{"", "no certificate"}, {strings.Repeat("x", quote.MaxItem+1), "more than 32768 bytes"},
	} {
		answer = row.answer
		if _, err := s.fetch(t.Context(), "00A067110000", "processor"); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("an answer of %d bytes: %v, want %q", len(row.answer), err, row.want)
		}
	}
	for _, args := range [][]string{
		{"--fmspc", "00a0", "--out", "x"}, {"--fmspc", "00a06711000g", "--out", "x"}, {"--fmspc", "00a067110000"}, {"--fmspc", "00a067110000", "--out", "x", "--ca", "root"},
	} {
		var stderr bytes.Buffer
		if code := runContext(t.Context(), append([]string{"collateral", "fetch"}, args...), &stderr, &stderr); code != exitUsage {
			t.Errorf("%v: exit code %d, %s", args, code, &stderr)
		}
	}
}
