package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/node"
)

// A ledgerWorld is a devnet with one API, of which everybody asks the same.
type ledgerWorld struct {
	*testing.T
	d            *node.Net
	home, socket string
}

func newLedgerWorld(t *testing.T) *ledgerWorld {
	t.Helper()
	dir, err := os.MkdirTemp("", "ledger") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := node.Devnet(t.Context(), node.DevnetConfig{
		Storage: 1, Edges: 1, Users: 2, Dir: filepath.Join(dir, "net"),
		Params: func(p *chain.Params) { *p = p.WithSlots(20, 1000) }, // nothing fades while we look
		Config: func(_ int, c *node.Config) { c.Gateway.Listen = "127.0.0.1:0" },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &ledgerWorld{T: t, d: d, home: filepath.Join(dir, "home"), socket: filepath.Join(dir, "api")}
	for i, key := range d.Users {
		if err := node.SaveKey(filepath.Join(w.home, "keys", fmt.Sprint("user", i)), key); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: d.Nodes[1].API()}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return w
}

// lode runs the program and returns what it printed.
func (w *ledgerWorld) lode(args ...string) string {
	w.Helper()
	var out, talk bytes.Buffer
	if code := runContext(context.Background(), append([]string{"--home", w.home, "--node", w.socket}, args...), &out, &talk); code != exitOK {
		w.Fatalf("lode %v: exit %d: %s", args, code, talk.String())
	}
	return out.String()
}

// get asks the API as any program does.
func (w *ledgerWorld) get(path string, v any) []byte {
	w.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.socket)
	}}}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://node" + path)
	if err != nil {
		w.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		w.Fatalf("%s: %d %s, %v", path, r.StatusCode, b, err)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			w.Fatal(err)
		}
	}
	return b
}

// metric reads one number from the metrics.
func (w *ledgerWorld) metric(name string) uint64 {
	w.Helper()
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(w.get("/metrics", nil))
	if m == nil {
		w.Fatalf("no metric %s", name)
	}
	x, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		w.Fatal(err)
	}
	return uint64(x)
}

// TestOneLedger pays a server through two tabs: chain, API, command line, CSV and
// metrics tell the same money to the grain, the credit is the sum of its lines,
// and rank, service and turn at this node read that very number.
func TestOneLedger(t *testing.T) { // spec §7.6, §7.7
	w := newLedgerWorld(t)
	server := w.d.Nodes[1].ID()
	total := coin.Amount(0)
	for i, claims := range [][]coin.Amount{{3_000_000_001, 7_000_000_003}, {25_000_000_007}} {
		user := fmt.Sprint("user", i)
		w.lode("credit", "tab", "open", server.String(), "30", "--from", user)
		for n, owed := range claims {
			file := filepath.Join(w.home, fmt.Sprint("r", i, n))
			r := w.lode("credit", "receipt", server.String(), "--bytes", fmt.Sprint(n+1, "GiB"), "--amount", fmt.Sprint(uint64(owed), " grains"), "--from", user)
			if err := os.WriteFile(file, []byte(r), 0o600); err != nil {
				t.Fatal(err)
			}
			w.lode("credit", "claim", file, "--from", "user0")
		}
		total += claims[len(claims)-1]
	}
	v := w.d.Solo.View()
	st, sum := v.Statement(server, 100), v.TabSum()

	// The chain: the lines add up, and so do the sums.
	at := st.Before
	var paid, burnt coin.Amount
	for _, l := range st.Lines {
		at = at - l.Faded + l.Got
		paid, burnt = paid+l.Paid, burnt+l.Burnt
		if l.Burnt != credit.Burn(l.Paid, v.Params().ClaimBurn) || l.Credit != at {
			t.Errorf("line %+v, they come to %v", l, at)
		}
	}
	if len(st.Lines) != 3 || st.Credit != at-st.Faded || paid != total || v.Supply().Burnt != burnt || st.Credit != total-burnt {
		t.Fatalf("statement %+v for %v", st, total)
	}
	if sum.Open != 2 || sum.Claims != 3 || sum.Paid != paid || sum.Burnt != burnt || sum.Held != 60*coin.LODE-paid || sum.Held != v.Supply().Tabs {
		t.Errorf("sums %+v", sum)
	}

	// The API and the command line, which prints what the API said.
	var a, explained creditAnswer
	var shown creditOf
	w.get("/lode/v1/credit/"+server.String(), &a)
	for text, to := range map[string]any{w.lode("explain", "credit", server.String(), "--json"): &explained, w.lode("credit", "show", server.String(), "--json"): &shown} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	for name, got := range map[string]creditAnswer{"api": a, "explain": explained, "show": shown.Credit} {
		if got.Statement.Credit != st.Credit || len(got.Statement.Lines) != 3 || got.Statement.Lines[2] != st.Lines[2] {
			t.Errorf("%s: %+v, the chain has %+v", name, got.Statement, st)
		}
	}
	left := coin.Amount(0)
	for _, x := range shown.Open.Tabs {
		left += x.Left
	}
	if left != sum.Held || len(shown.Open.Tabs) != 2 {
		t.Errorf("tabs open to it hold %v, all tabs %v", left, sum.Held)
	}
	var supply struct{ Supply chain.Supply }
	w.get("/lode/v1/supply", &supply)
	if supply.Supply.Burnt != burnt || supply.Supply.Tabs != left || !supply.Supply.Conserved {
		t.Errorf("supply %+v", supply.Supply)
	}

	// The CSV.
	rows, err := csv.NewReader(bytes.NewReader([]byte(w.lode("credit", "history", server.String(), "--kind", "claimed", "--csv")))).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	var csvPaid, csvBurnt uint64
	for _, row := range rows[1:] {
		p, _ := strconv.ParseUint(row[6], 10, 64)
		b, _ := strconv.ParseUint(row[7], 10, 64)
		csvPaid, csvBurnt = csvPaid+p, csvBurnt+b
	}
	if csvPaid != uint64(paid) || csvBurnt != uint64(burnt) || rows[1][9] != strconv.FormatUint(uint64(st.Credit), 10) {
		t.Errorf("the CSV has %d paid, %d burnt, %v at last; the chain %v, %v, %v", csvPaid, csvBurnt, rows[1], paid, burnt, st.Credit)
	}

	// The metrics.
	for name, want := range map[string]uint64{
		"lode_credit_tabs_open": 2, "lode_credit_tabs_grains": uint64(left), "lode_credit_claims_total": 3,
		"lode_credit_paid_grains_total": uint64(paid), "lode_credit_burnt_grains_total": uint64(burnt), "lode_credit_own_grains": uint64(st.Credit),
	} {
		if got := w.metric(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}

	// What reads it: an edge proves nothing, and its credit counts all the same.
	var rank rankAnswer
	w.get("/lode/v1/peers/"+server.String(), &rank)
	par, market := credit.Default(), v.Params().Market
	if want := par.Chain(false, st.Credit).P; rank.Rank.Word.P != want || a.Use.Chance != want || want <= par.Newcomer {
		t.Errorf("the rank begins at %d, explained as %d, want %d", rank.Rank.Word.P, a.Use.Chance, want)
	}
	parts := uint64(0)
	for _, p := range a.Use.Chain {
		parts += p.PPM
	}
	if parts != a.Use.Chance {
		t.Errorf("the parts %+v come to %d of %d", a.Use.Chain, parts, a.Use.Chance)
	}
	weight := uint64(0)
	for _, p := range a.Use.Parts {
		weight += p.Share
	}
	if want := rank.Rank.Share; a.Use.Share != want || weight != want || want <= a.Use.Without {
		t.Errorf("it is served with a weight of %d, in parts %d, without its credit %d; want %d", a.Use.Share, weight, a.Use.Without, want)
	}
	if want := market.Tier(st.Credit); a.Use.Tier != want || want == 0 {
		t.Errorf("tier %d, want %d", a.Use.Tier, want)
	}
	if who := (peer.ID)(st.Owner); who != server {
		t.Errorf("booked to %v, want %v", who, server)
	}
}
