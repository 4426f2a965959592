package bitswap

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

const payPrice = credit.Price(1 << 20) // a grain for each KiB

// A payWorld is a payer with tabs that a test sets.
type payWorld struct {
	y    *payer
	now  int64
	tabs map[peer.ID]credit.Tab
}

func newPayWorld(t testing.TB, b Budget) (*payWorld, peer.ID) {
	t.Helper()
	_, me := keyOf(t, 1)
	_, server := keyOf(t, 2)
	w := &payWorld{now: start, tabs: map[peer.ID]credit.Tab{server: {Opened: 7, Deposited: 1 << 30}}}
	w.y = newPayer("dev-1", me, payPrice, b, purse{}, func(p peer.ID) (credit.Tab, bool) { x, ok := w.tabs[p]; return x, ok })
	return w, server
}

var wide = Budget{Period: time.Hour, Most: 1 << 40}

// agree has the payer greet p and takes it that p answers with terms.
func (w *payWorld) agree(t *testing.T, p peer.ID, step uint64) {
	t.Helper()
	w.y.arrived(w.now, p, 1, false)
	if acts := w.y.take(); len(acts) != 1 || acts[0].kind != payOpen || acts[0].opened != 7 {
		t.Fatalf("after the first byte: %+v, want a stream", acts)
	}
	w.y.terms(w.now, p, &receiptTerms{Price: payPrice, Step: step}, credit.Receipt{})
}

// says returns what was decided, in words.
func (w *payWorld) says() string {
	var out []string
	for _, a := range w.y.take() {
		switch a.kind {
		case payOpen:
			out = append(out, "open")
		case paySign:
			out = append(out, fmt.Sprintf("sign %d for %d", a.receipt.Bytes, uint64(a.receipt.Grains)))
		case payClose:
			out = append(out, "close: "+a.refusal.Text)
		}
	}
	return strings.Join(out, "; ")
}

func TestClientsSignEachHalfStepOrTwoSeconds(t *testing.T) { // spec §7.5
	w, p := newPayWorld(t, wide)
	w.agree(t, p, credit.MinStep)
	if got := w.says(); got != "" {
		t.Errorf("after the terms: %s", got)
	}
	w.y.arrived(w.now, p, credit.MinStep/2-2, false)
	if got := w.says(); got != "" {
		t.Errorf("a byte before half a step: %s", got)
	}
	w.y.arrived(w.now, p, 1, false)
	if got, want := w.says(), "sign 131072 for 128"; got != want {
		t.Errorf("at half a step: %q, want %q", got, want)
	}
	w.y.arrived(w.now, p, 1000, false)
	if next := w.y.tick(w.now); next != w.now+signEvery || w.says() != "" {
		t.Errorf("next look in %d µs", next-w.now)
	}
	w.now += signEvery
	if next, got := w.y.tick(w.now), w.says(); next != 0 || got != "sign 132072 for 129" {
		t.Errorf("after two seconds: %q, next look at %d", got, next)
	}
	w.y.taken(p, &receiptTaken{Bytes: 132072, Step: 4 << 20})
	w.y.arrived(w.now, p, 2<<20-1, false)
	if got := w.says(); got != "" {
		t.Errorf("below half of a larger step: %s", got)
	}
	w.y.arrived(w.now, p, 1, false)
	if got, want := w.says(), fmt.Sprintf("sign %d for %d", 132072+(2<<20), 129+2048); got != want {
		t.Errorf("at half of a larger step: %q, want %q", got, want)
	}
}

func TestNothingIsPaidWithoutATab(t *testing.T) { // spec §7.5: strangers cost nothing
	w, p := newPayWorld(t, wide)
	_, other := keyOf(t, 3)
	for range 100 {
		if w.y.arrived(w.now, other, 1<<20, false) {
			t.Fatal("there is something to do for a server without a tab")
		}
	}
	w.tabs[p] = credit.Tab{Opened: 7, Deposited: 1 << 30, Closes: 99}
	w.y.arrived(w.now, p, 1<<20, false)
	if got := w.says(); got != "" {
		t.Errorf("a tab that closes: %s", got)
	}
	if s := w.y.states(w.now); len(s) != 1 || s[0].Unpaid != 1<<20 {
		t.Errorf("states %+v", s)
	}
}

func TestAPriceAboveOursIsNotPaid(t *testing.T) { // spec §7.5
	w, p := newPayWorld(t, wide)
	w.y.arrived(w.now, p, 1<<20, false)
	w.says()
	w.y.terms(w.now, p, &receiptTerms{Price: payPrice + 1, Step: credit.MinStep}, credit.Receipt{})
	got := w.says()
	if !strings.HasPrefix(got, "close: the server asks") {
		t.Fatalf("got %q", got)
	}
	s := w.y.states(w.now)[0]
	if s.State != "idle" || s.Why == "" || s.Unpaid != 1<<20 || s.Rests != payRefused || w.y.sum.grains != 0 {
		t.Errorf("%+v", s)
	}
	w.y.arrived(w.now, p, 1<<20, false)
	if got := w.says(); got != "" {
		t.Errorf("at once: %q", got)
	}
	w.now += payRefused
	w.y.arrived(w.now, p, 1, false)
	if got := w.says(); got != "open" {
		t.Errorf("after a while: %q, want to ask again", got)
	}
	w.y.refused(w.now, p, refuse(refusedPrice, "asks more"))
	if rests := w.y.states(w.now)[0].Rests; rests != 2*payRefused {
		t.Errorf("refused again: rests for %d µs, want twice as long", rests)
	}
}

// TestBytesThatComeTwiceAreBounded: a server cannot make a client pay for what it
// has.
func TestBytesThatComeTwiceAreBounded(t *testing.T) {
	w, p := newPayWorld(t, wide)
	w.agree(t, p, credit.MaxStep)
	w.y.arrived(w.now, p, 16<<20-1, false)
	for range 1000 {
		w.y.arrived(w.now, p, 64<<10, true)
	}
	w.now += signEvery
	w.y.tick(w.now)
	if got, want := w.says(), fmt.Sprintf("sign %d for %d", 17<<20, 17<<10); got != want {
		t.Errorf("got %q, want %q: one sixteenth more", got, want)
	}
}

func TestALostStreamIsOpenedAgain(t *testing.T) {
	w, p := newPayWorld(t, wide)
	w.agree(t, p, credit.MinStep)
	w.y.arrived(w.now, p, 1<<20-1, false)
	if got := w.says(); got != "sign 1048576 for 1024" {
		t.Fatal(got)
	}
	w.y.lost(w.now, p, "reset")
	w.y.arrived(w.now, p, 1024, false)
	if got := w.says(); got != "" {
		t.Errorf("at once: %q", got)
	}
	w.now += payAgain
	w.y.arrived(w.now, p, 1024, false)
	if got := w.says(); got != "open" {
		t.Fatalf("after a second: %q", got)
	}
	// The server never saw the last receipt, and says that it keeps an older one.
	old := signedBy(t, 1, 2, 7, 1000, 1)
	w.y.terms(w.now, p, &receiptTerms{Price: payPrice, Step: credit.MinStep}, old)
	w.now += signEvery
	w.y.tick(w.now)
	if got, want := w.says(), "sign 1048576 for 1024; sign 1050624 for 1026"; got != want {
		t.Errorf("got %q, want %q: what was lost, and what came since", got, want)
	}
}

func TestARestartedClientTakesItsWordFromTheServer(t *testing.T) { // spec §7.5: totals only rise
	w, p := newPayWorld(t, wide)
	w.y.arrived(w.now, p, 1024, false)
	w.says()
	w.y.terms(w.now, p, &receiptTerms{Price: payPrice, Step: credit.MinStep}, signedBy(t, 1, 2, 7, 5<<20, 5000))
	w.now += signEvery
	w.y.tick(w.now)
	if got, want := w.says(), fmt.Sprintf("sign %d for 5001", 5<<20+1024); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, last := range map[string]credit.Receipt{"another server": signedBy(t, 1, 3, 7, 1, 1), "another client": signedBy(t, 4, 2, 7, 1, 1), "another tab": signedBy(t, 1, 2, 8, 1, 1)} {
		w, p := newPayWorld(t, wide)
		w.y.arrived(w.now, p, 1024, false)
		w.says()
		w.y.terms(w.now, p, &receiptTerms{Price: payPrice, Step: credit.MinStep}, last)
		if got := w.says(); !strings.HasPrefix(got, "close: the server keeps a receipt of") {
			t.Errorf("a receipt of %s: %q", name, got)
		}
	}
}

func TestATabThatIsUsedUpEndsThePaying(t *testing.T) {
	w, p := newPayWorld(t, wide)
	w.tabs[p] = credit.Tab{Opened: 7, Deposited: 1000}
	w.agree(t, p, credit.MinStep)
	w.y.arrived(w.now, p, 2<<20, false)
	if got := w.says(); !strings.HasPrefix(got, "sign 1024000 for 1000; close: the tab of") || !strings.HasSuffix(got, "is used up") {
		t.Errorf("got %q", got)
	}
	w.y.arrived(w.now, p, 1<<20, false)
	w.tabs[p] = credit.Tab{Opened: 7, Deposited: 3000}
	w.now += tabLook
	w.y.arrived(w.now, p, 1<<10, false)
	if got := w.says(); got != "open" {
		t.Errorf("after it was funded again: %q", got)
	}
	w.y.terms(w.now, p, &receiptTerms{Price: payPrice, Step: credit.MinStep}, credit.Receipt{})
	w.tabs[p] = credit.Tab{Opened: 9, Deposited: 3000}
	w.now += tabLook
	w.y.arrived(w.now, p, 1<<10, false)
	w.says()
	if a := w.y.all[p]; a.last.Opened != 0 || a.bytes != 1<<10 {
		t.Errorf("a tab opened anew begins with %+v and %d bytes", a.last, a.bytes)
	}
}

// TestBudgetsAreNeverExceeded: whatever comes, from whom, and however often the
// client begins anew with what is on its disk, no period pays more than its
// budget, no server more than its own, and no tab more than it holds.
func TestBudgetsAreNeverExceeded(t *testing.T) { // issue: never a surprise bill
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 11))
		b := Budget{Period: time.Minute, Most: coin.Amount(1 + r.Uint64N(20_000)), Server: coin.Amount(r.Uint64N(8000))}
		book, err := openReceipts("")
		if err != nil {
			t.Fatal(err)
		}
		_, me := keyOf(t, 1)
		tabs := map[peer.ID]credit.Tab{}
		var servers []peer.ID
		for i := range 5 {
			_, p := keyOf(t, byte(10+i))
			servers = append(servers, p)
			tabs[p] = credit.Tab{Opened: int64(1 + i), Deposited: coin.Amount(r.Uint64N(30_000))}
		}
		now := start
		fresh := func() *payer {
			return newPayer("dev-1", me, payPrice, b, book.spent(), func(p peer.ID) (credit.Tab, bool) { return tabs[p], true })
		}
		y := fresh()
		kept := map[peer.ID]credit.Receipt{} // what each server has
		total := map[peer.ID]coin.Amount{}   // the most that was ever signed
		period := map[int64]coin.Amount{}
		byServer := map[string]coin.Amount{}
		for range 3000 {
			now += r.Int64N(100_000)
			p := servers[r.IntN(len(servers))]
			switch r.IntN(12) {
			case 0:
				y.lost(now, p, "lost")
			case 1:
				now += 10 * sec
				y.tick(now)
			case 2:
				if r.IntN(10) == 0 {
					y = fresh() // a crash: what was signed was on disk
				}
			case 3:
				x := tabs[p]
				x.Deposited += coin.Amount(r.Uint64N(500))
				tabs[p] = x
			case 4:
				now -= r.Int64N(sec) // a clock that is set back
			default:
				y.arrived(now, p, r.Uint64N(1<<20), r.IntN(20) == 0)
			}
			for acts := y.take(); len(acts) > 0; acts = y.take() {
				for _, a := range acts {
					switch a.kind {
					case payOpen:
						last := kept[a.peer]
						if r.IntN(4) == 0 {
							last = credit.Receipt{} // a server that forgets
						}
						y.terms(now, a.peer, &receiptTerms{Price: payPrice - credit.Price(r.Uint64N(2)), Step: credit.MinStep}, last)
					case paySign:
						if more := a.receipt.Grains - min(total[a.peer], a.receipt.Grains); more > 0 {
							total[a.peer] += more
							period[y.purse.Period] += more
							byServer[fmt.Sprint(y.purse.Period, a.peer)] += more
						}
						if a.receipt.Grains > tabs[a.peer].Deposited {
							t.Fatalf("seed %d: signed for %v of a tab of %v", seed, a.receipt.Grains, tabs[a.peer].Deposited)
						}
						if r.IntN(3) > 0 && a.receipt.Bytes >= kept[a.peer].Bytes {
							kept[a.peer] = a.receipt
						}
						if err := book.spend(y.purse.ahead(b, book.spent(), a.peer)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		paid := coin.Amount(0)
		for n, spent := range period {
			if paid += spent; spent > b.Most {
				t.Errorf("seed %d: %v in period %d, the budget is %v", seed, spent, n, b.Most)
			}
		}
		for key, spent := range byServer {
			if b.Server > 0 && spent > b.Server {
				t.Errorf("seed %d: %v in %s, the budget of a server is %v", seed, spent, key, b.Server)
			}
		}
		if paid == 0 {
			t.Errorf("seed %d: nothing was paid at all", seed)
		}
	}
}

func TestTillRefusesEachCorruption(t *testing.T) { // spec §7.5
	_, client := keyOf(t, 1)
	_, server := keyOf(t, 2)
	tab := credit.Tab{Opened: 7, Deposited: 10_000}
	fresh := func() *till {
		return &till{chain: "dev-1", client: client, server: server, opened: 7, price: payPrice, last: signedBy(t, 1, 2, 7, 1<<20, 1024)}
	}
	good := signedBy(t, 1, 2, 7, 2<<20, 2048)
	if covers, no := fresh().accept(good, tab); no != nil || covers != 1<<20 {
		t.Fatalf("a good receipt covers %d bytes: %v", covers, no)
	}
	other := signedBy(t, 1, 2, 7, 2<<20, 2048)
	other.ChainID = "dev-2"
	flipped := signedBy(t, 1, 2, 7, 2<<20, 2048)
	flipped.Sig[5] ^= 1
	raised := signedBy(t, 1, 2, 7, 2<<20, 2048)
	raised.Grains++
	for _, x := range []struct {
		name string
		r    credit.Receipt
		code uint8
	}{
		{"another chain", other, refusedFork},
		{"another client", signedBy(t, 3, 2, 7, 2<<20, 2048), refusedFork},
		{"another server", signedBy(t, 1, 3, 7, 2<<20, 2048), refusedFork},
		{"another tab", signedBy(t, 1, 2, 8, 2<<20, 2048), refusedFork},
		{"fewer bytes", signedBy(t, 1, 2, 7, 1<<20-1, 2048), refusedFork},
		{"fewer grains", signedBy(t, 1, 2, 7, 2<<20, 1023), refusedFork},
		{"a flipped bit", flipped, refusedSigned},
		{"another amount", raised, refusedSigned},
	} {
		till := fresh()
		was := till.last
		covers, no := till.accept(x.r, tab)
		if no == nil || no.Code != x.code || covers != 0 {
			t.Errorf("%s: covers %d, %v; want code %d", x.name, covers, no, x.code)
		}
		if till.last.Bytes != was.Bytes {
			t.Errorf("%s took the place of the last receipt", x.name)
		}
	}
	for _, x := range []struct {
		name   string
		tab    credit.Tab
		r      credit.Receipt
		covers uint64
	}{
		{"the same again", tab, signedBy(t, 1, 2, 7, 1<<20, 1024), 0},
		{"bytes without money", tab, signedBy(t, 1, 2, 7, 2<<20, 1024), 0},
		{"half of the money", tab, signedBy(t, 1, 2, 7, 2<<20, 1536), 512 << 10},
		{"more money than asked", tab, signedBy(t, 1, 2, 7, 2<<20, 9000), 1 << 20},
		{"beyond the tab", credit.Tab{Opened: 7, Deposited: 1280}, good, 256 << 10},
		{"beyond the tab before", credit.Tab{Opened: 7, Deposited: 1000}, good, 0},
		{"a tab that closes", credit.Tab{Opened: 7, Deposited: 10_000, Closes: 50}, good, 0},
		{"a tab that is gone", credit.Tab{}, good, 0},
		{"a tab opened anew", credit.Tab{Opened: 9, Deposited: 10_000}, good, 0},
	} {
		till := fresh()
		covers, no := till.accept(x.r, x.tab)
		if no != nil || covers != x.covers || till.last.Grains != x.r.Grains {
			t.Errorf("%s: covers %d bytes, %v; want %d, and the receipt kept", x.name, covers, no, x.covers)
		}
	}
}

func TestTillGreets(t *testing.T) { // spec §7.5
	_, client := keyOf(t, 1)
	_, server := keyOf(t, 2)
	hello := receiptHello{Chain: "dev-1", Opened: 7, Most: payPrice}
	tab := credit.Tab{Opened: 7, Deposited: 1}
	for _, x := range []struct {
		name   string
		change func(*receiptHello, *credit.Tab)
		code   uint8
	}{
		{"nothing", func(*receiptHello, *credit.Tab) {}, 0},
		{"the chain", func(h *receiptHello, _ *credit.Tab) { h.Chain = "dev-2" }, refusedChain},
		{"the height", func(h *receiptHello, _ *credit.Tab) { h.Opened = 8 }, refusedTab},
		{"no tab", func(_ *receiptHello, x *credit.Tab) { *x = credit.Tab{} }, refusedTab},
		{"it closes", func(_ *receiptHello, x *credit.Tab) { x.Closes = 9 }, refusedTab},
		{"the price", func(h *receiptHello, _ *credit.Tab) { h.Most-- }, refusedPrice},
	} {
		h, y := hello, tab
		x.change(&h, &y)
		tl := till{chain: "dev-1", client: client, server: server, price: payPrice}
		code := uint8(0)
		if no := tl.greet(&h, y); no != nil {
			code = no.Code
		}
		if code != x.code {
			t.Errorf("%s: code %d, want %d", x.name, code, x.code)
		}
	}
}
