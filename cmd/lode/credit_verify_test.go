package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// TestReceiptsAreVerifiedWithoutANode: a receipt that its client signed is valid
// and pays what the tab has, less the burn; each corruption is told, and fails.
func TestReceiptsAreVerifiedWithoutANode(t *testing.T) { // spec §7.5, §7.6
	dir := t.TempDir()
	key := func(name string) (crypto.PrivKey, peer.ID) {
		k, _, err := crypto.GenerateEd25519Key(strings.NewReader(strings.Repeat(name, 64)))
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return k, id
	}
	ckey, client := key("c")
	_, server := key("s")
	sign := func(n uint64, x coin.Amount) credit.Receipt {
		r, err := credit.Receipt{ChainID: "lode-1", Client: client, Server: server, Opened: 7, Bytes: n, Grains: x}.Sign(ckey)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	file := func(name string, v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first, second := sign(1000, 10), sign(3000, 31)
	forged, other := second, second
	forged.Grains++
	other.Opened = 8
	tab := credit.Tab{Opened: 7, Deposited: 25, Paid: 10, Bytes: 1000}
	a, b := file("first", first), file("second", second)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
		pays coin.Amount
	}{
		"as it was signed":      {[]string{b}, exitOK, "its client signed it", 0},
		"after an earlier one":  {[]string{b, "--after", a}, exitOK, "its client signed it", 0},
		"before it":             {[]string{a, "--after", b}, exitFailed, "does not follow", 0},
		"more grains":           {[]string{file("forged", forged)}, exitFailed, "did not sign", 0},
		"under another tab":     {[]string{file("other", other)}, exitFailed, "did not sign", 0},
		"after a forged one":    {[]string{b, "--after", filepath.Join(dir, "forged")}, exitFailed, "the earlier one", 0},
		"what the tab has":      {[]string{b, "--tab", file("tab", tab)}, exitOK, "more than the tab ever had", 15},
		"that was paid":         {[]string{a, "--tab", filepath.Join(dir, "tab")}, exitOK, "pays nothing", 0},
		"of a tab that is gone": {[]string{a, "--tab", file("none", credit.Tab{})}, exitFailed, "this one is of 0", 0},
		"no receipt":            {[]string{file("text", "receipt")}, exitUsage, "", 0},
		"no file":               {[]string{filepath.Join(dir, "nowhere")}, exitNotFound, "", 0},
		"no class":              {[]string{b, "--class", "x"}, exitUsage, "", 0},
	} {
		var out, talk bytes.Buffer
		code := runContext(t.Context(), append([]string{"--home", dir, "--json", "credit", "receipt", "verify"}, c.args...), &out, &talk)
		if code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: exit %d, %s%s; want %d and %q", name, code, out.String(), talk.String(), c.code, c.want)
		}
		if c.want == "" {
			continue
		}
		var v receiptVerdict
		if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Valid != (c.code == exitOK) || (v.Pays != nil) != (c.pays > 0) {
			t.Errorf("%s: %s, %v", name, out.String(), err)
		}
		if v.Pays != nil && (v.Pays.Paid != c.pays || v.Pays.Burnt+v.Pays.Got != c.pays || v.Pays.Burnt != 3) {
			t.Errorf("%s: it pays %+v, want %d", name, *v.Pays, c.pays)
		}
	}
	var out, talk bytes.Buffer
	if code := runContext(t.Context(), []string{"--home", dir, "credit", "receipt", "verify", filepath.Join(dir, "forged")}, &out, &talk); code != exitFailed || !strings.Contains(out.String(), "NOT VALID") {
		t.Errorf("exit %d, %s%s", code, out.String(), talk.String())
	}
}
