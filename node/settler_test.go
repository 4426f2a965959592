package node

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

func TestJudge(t *testing.T) { // spec §7.6: claims when worth the fee
	open := credit.Tab{Opened: 7, Deposited: 1_000_000}
	closing := open
	closing.Closes = 90
	r := credit.Receipt{Opened: 7, Grains: 500_000}
	for _, x := range []struct {
		name  string
		due   due
		worth uint64
		want  verdict
		why   string
	}{
		{"worth it", due{Receipt: r, Tab: open, Pays: credit.Payment{Got: 2000}, Fee: 100}, 20, claimIt, "for a fee of"},
		{"a grain short", due{Receipt: r, Tab: open, Pays: credit.Payment{Got: 1999}, Fee: 100}, 20, waitFor, "20 fees"},
		{"its tab closes", due{Receipt: r, Tab: closing, Pays: credit.Payment{Got: 101}, Fee: 100}, 20, claimIt, "closes at height 90"},
		{"it closes, and costs more than it brings", due{Receipt: r, Tab: closing, Pays: credit.Payment{Got: 100}, Fee: 100}, 20, waitFor, "would cost"},
		{"used up", due{Receipt: credit.Receipt{Opened: 7, Grains: 1_000_000}, Tab: open, Pays: credit.Payment{Got: 101}, Fee: 100}, 20, claimIt, "used up"},
		{"nothing new", due{Receipt: r, Tab: open, Fee: 100}, 20, waitFor, "nothing"},
		{"under way", due{Receipt: r, Tab: open, Pays: credit.Payment{Got: 2000}, Fee: 100, Busy: true}, 20, waitFor, "under way"},
		{"by hand only", due{Receipt: r, Tab: open, Pays: credit.Payment{Got: 2000}, Fee: 100}, 0, waitFor, "claims nothing by itself"},
		{"the tab is gone", due{Receipt: r}, 20, forgetIt, "gone"},
		{"another tab is open", due{Receipt: r, Tab: credit.Tab{Opened: 9, Deposited: 5}, Busy: true}, 0, forgetIt, "gone"},
		{"more than there is", due{Receipt: r, Tab: open, Pays: credit.Payment{Got: 2000}, Fee: 1 << 60}, 1_000_000, waitFor, "would cost"},
	} {
		if got, why := judge(x.due, x.worth); got != x.want || !strings.Contains(why, x.why) {
			t.Errorf("%s: %s, %q; want %s, %q", x.name, got, why, x.want, x.why)
		}
	}
}

// A purseful is what a server keeps in a test: receipts that outlive the settler,
// as those on a disk do.
type purseful struct {
	mu  sync.Mutex // guards the field below
	all map[tabKey]credit.Receipt
}

func (p *purseful) put(r credit.Receipt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[tabKey{r.Client, r.Opened}] = r
}

func (p *purseful) list() (out []credit.Receipt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.all {
		out = append(out, r)
	}
	return out
}

func (p *purseful) drop(dead func(credit.Receipt) bool) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, r := range p.all {
		if dead(r) {
			delete(p.all, k)
			n++
		}
	}
	return n, nil
}

// TestTheSettlerClaims: a receipt is claimed once it is worth it, once; one that
// came while no settler ran is claimed by the next; one of a tab that closes is
// claimed before that is gone, and then forgotten. The server's credit on chain is
// what it was paid less the burn.
func TestTheSettlerClaims(t *testing.T) { // spec §7.6
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := Devnet(t.Context(), DevnetConfig{Edges: 1, Users: 2, Dir: t.TempDir(), Interval: 20 * time.Millisecond, Params: func(p *chain.Params) { *p = p.WithSlots(4, 3); p.CloseSlots = 2 }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	client, server := d.Users[0], d.Users[1]
	cid, sid := idOfKey(t, client), idOfKey(t, server)
	pays, serves := mustAs(t, d, client), mustAs(t, d, server)
	keeps := &purseful{all: map[tabKey]credit.Receipt{}}
	fund := func(x coin.Amount) int64 {
		t.Helper()
		if _, err := pays.Submit(ctx, chain.Msg{Credit: &credit.Msg{Fund: &credit.Fund{Server: sid, Amount: x}}}); err != nil {
			t.Fatal(err)
		}
		tab, ok := d.Solo.View().Tab(cid, sid)
		if !ok {
			t.Fatal("no tab after a fund")
		}
		return tab.Opened
	}
	opened := fund(100 * coin.LODE)
	sign := func(n uint64, grains coin.Amount) credit.Receipt {
		t.Helper()
		r, err := credit.Receipt{ChainID: d.Solo.View().ChainID(), Client: cid, Server: sid, Opened: opened, Bytes: n, Grains: grains}.Sign(client)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	start := func() (*settler, func()) {
		s := &settler{
			chain: serves, me: sid, worth: 20, receipts: keeps.list, forget: keeps.drop, log: slog.New(slog.DiscardHandler), m: d.Nodes[0].metrics,
			busy: map[tabKey]bool{}, errs: map[tabKey]string{},
		}
		ctx, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); _ = s.run(ctx) }()
		return s, func() { stop(); <-done }
	}
	paid := func(want coin.Amount) {
		t.Helper()
		v, err := d.Until(ctx, func(v *chain.View) bool { tab, _ := v.Tab(cid, sid); return tab.Paid >= want })
		if err != nil {
			t.Fatal(err)
		}
		tab, _ := v.Tab(cid, sid)
		if got := v.Credit(sid); tab.Paid != want || got != want-credit.Burn(want, v.Params().ClaimBurn) {
			t.Fatalf("paid %v, credit %v; want %v, and that less the burn", tab.Paid, got, want)
		}
	}
	_, stop := start()
	keeps.put(sign(1000, coin.LODE))
	paid(coin.LODE)
	stop()
	// What was signed while nothing ran, as in a crash, is claimed at the start.
	keeps.put(sign(2000, 3*coin.LODE))
	s, stop := start()
	paid(3 * coin.LODE)
	// Dust waits, until the tab closes.
	keeps.put(sign(3000, 3*coin.LODE+2_000_000))
	slot := d.Solo.View().Slot()
	if v, err := d.Until(ctx, func(v *chain.View) bool { return v.Slot() >= slot+2 }); err != nil {
		t.Fatal(err)
	} else if tab, _ := v.Tab(cid, sid); tab.Paid != 3*coin.LODE {
		t.Fatalf("dust was claimed: %v paid", tab.Paid)
	}
	if v, why := judge(s.look()[0], s.worth); v != waitFor || !strings.Contains(why, "20 fees") {
		t.Errorf("dust: %s, %s", v, why)
	}
	if _, err := pays.Submit(ctx, chain.Msg{Credit: &credit.Msg{Close: &credit.Close{Server: sid}}}); err != nil {
		t.Fatal(err)
	}
	paid(3*coin.LODE + 2_000_000)
	if _, err := d.Until(ctx, func(v *chain.View) bool { _, ok := v.Tab(cid, sid); return !ok && len(keeps.list()) == 0 }); err != nil {
		t.Fatalf("of a tab that is gone %d receipts are kept: %v", len(keeps.list()), err)
	}
	stop()
	// By hand: whatever it is worth, and a client that nobody knows is an error.
	opened = fund(coin.LODE)
	keeps.put(sign(10, 5))
	done, err := s.now(ctx, cid)
	if err != nil || len(done) != 1 || done[0].Paid != 5 || done[0].Burnt != 1 || done[0].Hash == "" {
		t.Errorf("claimed by hand: %+v, %v", done, err)
	}
	if done, err := s.now(ctx, ""); err != nil || len(done) != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	if _, err := s.now(ctx, sid); err == nil || !strings.Contains(err.Error(), "no receipt of") {
		t.Errorf("of nobody: %v", err)
	}
}

func mustAs(t *testing.T, d *Net, key crypto.PrivKey) *chain.Solo {
	t.Helper()
	s, err := d.As(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func idOfKey(t *testing.T, key crypto.PrivKey) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestUnclaimedReceiptsAddUp: of all receipts, those for the peer that pay
// something now; each is burn and gain, and the gains come to what the credit
// would be.
func TestUnclaimedReceiptsAddUp(t *testing.T) { // spec §7.6
	of := func(server peer.ID, n uint64, paid, grains, deposited coin.Amount) ReceiptState {
		r := ReceiptState{Receipt: credit.Receipt{Client: "c", Server: server, Opened: 7, Bytes: n, Grains: grains}, Tab: credit.Tab{Opened: 7, Deposited: deposited, Paid: paid, Bytes: n / 2}}
		if _, p, err := r.Tab.Claim(r.Receipt, 200_000); err == nil {
			r.Unclaimed, r.Got = p.Paid, p.Got
		}
		return r
	}
	got, with := unclaimed("s", 1000, []ReceiptState{of("s", 10, 5, 16, 100), of("s", 20, 16, 16, 100), of("x", 30, 0, 50, 100), of("s", 40, 90, 500, 100)})
	want := []Unclaimed{{"c", "s", 5, 11, 3, 8}, {"c", "s", 20, 10, 2, 8}}
	if !slices.Equal(got, want) || with != 1016 {
		t.Errorf("%+v, %v with them; want %+v, 1016 grains", got, with, want)
	}
	if got, with := unclaimed("s", math.MaxUint64-3, []ReceiptState{of("s", 10, 5, 16, 100)}); len(got) != 1 || with != math.MaxUint64 {
		t.Errorf("at the end of 64 bits: %+v, %v", got, with)
	}
	if got, with := unclaimed("nobody", 7, nil); got == nil || len(got) != 0 || with != 7 {
		t.Errorf("of nobody: %+v, %v", got, with)
	}
}
