package bitswap

import (
	"fmt"
	"math/rand/v2"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

func amount(n uint64) coin.Amount { return coin.Amount(n) }

// A counter is a server that is loaded by three readers, and what one client gets
// of it.
type counter struct {
	t    *testing.T
	q    *turns
	now  int64
	next uint64
	size map[string]int
}

const clientID = peer.ID("client")

// newCounter is loaded for as long as busy keeps it so.
func newCounter(t *testing.T) *counter {
	lim := serverLimits()
	lim.Slots = 4
	c := &counter{t: t, q: newTurns(lim), now: secondMicros, size: map[string]int{}}
	c.q.owed = newOwed()
	for i := range 3 {
		p := peer.ID(fmt.Sprintf("busy%d", i))
		c.ask(p, 1, 1<<16)
		if d := c.q.next(c.now); d.kind != begin || d.peer != p {
			t.Fatalf("%s was to begin, got %+v", p, d)
		}
		cid, _ := c.q.take(p, 0)
		c.q.sending(c.now, p, []blocks.Block{sized(cid, 1<<16)})
	}
	c.busy(0)
	if !c.q.loaded(c.now) {
		t.Fatal("three of four slots move, and the server is not loaded")
	}
	return c
}

// busy lets time pass, in which the three go on.
func (c *counter) busy(us int64) {
	c.now += us
	for i := range 3 {
		c.q.progress(c.now, peer.ID(fmt.Sprintf("busy%d", i)), 1)
	}
}

// ask has p want n blocks of a size.
func (c *counter) ask(p peer.ID, n, size int) {
	var es []entry
	for range n {
		c.next++
		es = append(es, entry{c: name(c.next)})
		c.size[name(c.next).KeyString()] = size
	}
	c.q.receive(c.now, p, 1, false, es)
	for {
		who, cs, _ := c.q.lookupsFor(c.now)
		if len(cs) == 0 {
			return
		}
		sizes := make([]int, len(cs))
		for i, x := range cs {
			sizes[i] = c.size[x.KeyString()]
		}
		c.q.found(c.now, who, cs, sizes)
	}
}

// serve gives the client all that it may have, and returns how many bytes that
// was. No time passes.
func (c *counter) serve() (got int) {
	for {
		d := c.q.next(c.now)
		if d.kind != begin {
			return got
		}
		if d.peer != clientID {
			c.t.Fatalf("it is the turn of %s", d.peer)
		}
		bytes := 0
		var bs []blocks.Block
		for {
			x, ok := c.q.take(clientID, bytes)
			if !ok {
				break
			}
			n := c.size[x.KeyString()]
			bs = append(bs, sized(x, n))
			bytes += n
		}
		f := c.q.sending(c.now, clientID, bs)
		if f.bytes() == 0 {
			c.t.Fatal("a message of nothing")
		}
		got += f.bytes()
		c.q.done(c.now, clientID, true)
	}
}

// owes returns the client's debt.
func (c *counter) owes() int64 { return c.q.owed.debt(c.now, clientID).owes }

func TestALoadedServerExtendsOneStep(t *testing.T) { // spec §7.5: to the byte
	const step = credit.MinStep
	for _, size := range []int{1, 1000, 64 << 10, 100_000, step - 1, step, step + 14, 1 << 20, blockMax} {
		c := newCounter(t)
		c.ask(clientID, min(3*step/size+4, 4000), size)
		want := step / size * size
		if size == 1 {
			want = 4000 // all that it asked for, with time for lookups
		}
		if size > step {
			want = size // one block to who owes nothing: else it would never go
		}
		if got := c.serve(); got != want || c.owes() != int64(want) {
			t.Errorf("blocks of %d bytes: %d bytes without a signature, owed %d, want %d", size, got, c.owes(), want)
		}
	}
}

func TestWhoDoesNotSignWaits(t *testing.T) { // spec §7.5, §7.4
	const block = 64 << 10
	c := newCounter(t)
	c.ask(clientID, 4000, block)
	first := c.serve()
	if first != credit.MinStep {
		t.Fatalf("the first step: %d bytes", first)
	}
	for _, x := range []struct {
		covers uint64
		want   int
	}{{0, 0}, {block - 1, 0}, {1, block}, {block / 2, 0}, {3 * block / 2, 2 * block}, {10 * block, 10 * block}} {
		c.q.signed(c.now, clientID, x.covers, 0, 1)
		if got := c.serve(); got != x.want {
			t.Fatalf("after a receipt for %d bytes: %d bytes, want %d", x.covers, got, x.want)
		}
		if c.owes() > credit.MinStep {
			t.Fatalf("owes %d", c.owes())
		}
	}
	owed := c.owes()
	c.busy(2*secondMicros - 1) // an allowance of 64 KiB is not quite there
	if got := c.serve(); got != 0 {
		t.Errorf("before its time: %d bytes", got)
	}
	c.busy(1)
	if got := c.serve(); got != block || c.owes() != owed {
		t.Errorf("after two seconds: %d bytes, owes %d, want %d and %d", got, c.owes(), block, owed)
	}
	if got := c.q.owed.forgiven; got != block {
		t.Errorf("forgiven: %d bytes, want %d", got, block)
	}
	// A debt of one step is gone in eight seconds: nobody waits for ten.
	c.busy(8 * secondMicros)
	if c.owes() != 0 {
		t.Errorf("after eight seconds: owes %d", c.owes())
	}
}

func TestUnloadedServersAskForNothing(t *testing.T) { // spec §7.5
	c := newCounter(t)
	c.ask(clientID, 400, 64<<10)
	if got := c.serve(); got != credit.MinStep {
		t.Fatalf("loaded: %d bytes", got)
	}
	if l := c.q.lines[clientID]; !l.held || len(c.q.waits) != 1 {
		t.Errorf("it waits for its receipt: %v, %d lines", l.held, len(c.q.waits))
	}
	c.q.done(c.now, "busy0", true) // the load is gone
	if got, want := c.serve(), 400*64<<10-credit.MinStep; got != want || c.owes() != credit.MinStep {
		t.Errorf("unloaded: %d bytes, owes %d; want %d as gifts", got, c.owes(), want)
	}
	if o := c.q.owed; o.gifts != 400*64<<10-credit.MinStep || o.extended != credit.MinStep+3<<16 || o.held != 1 {
		t.Errorf("gifts %d, extended %d, held %d times", o.gifts, o.extended, o.held)
	}
	c.q.disconnected(c.now, clientID)
	c.ask(clientID, 10, 64<<10) // to come again is of no use
	if c.owes() != credit.MinStep {
		t.Errorf("after coming again: owes %d", c.owes())
	}
}

func TestStepsGrowWithWhatWasPaid(t *testing.T) { // spec §7.5
	c := newCounter(t)
	c.ask(clientID, 8000, 64<<10)
	paid, got := uint64(0), 0
	for range 36 {
		got += c.serve()
		if owes, most := c.owes(), int64(credit.Step(paid)); owes > most || owes < most-64<<10 {
			t.Fatalf("paid for %d: owes %d, a step is %d", paid, owes, most)
		}
		n := uint64(c.owes())
		paid += n
		c.q.signed(c.now, clientID, n, paid, 1)
	}
	if got < 100<<20 {
		t.Errorf("%d bytes in 36 steps", got)
	}
}

// A trader is a client in a town whose server asks a price.
type trader struct {
	*resident
	kind string
	key  crypto.PrivKey
	tab  credit.Tab
	till till
	last credit.Receipt // that it signed
	paid uint64         // by the server's books
	seen int            // bytes of got that it signed for, or would not
	sure uint64         // bytes that the server is sure of being paid for, counted again by the test
	lent int            // bytes given to it while loaded, counted by the test
	no   int            // receipts refused
}

const tradePrice = credit.Price(1 << 20) // a grain for each KiB

// signs makes the next receipt of a trader who has n bytes more, by its
// character; false: it sends none.
func (x *trader) signs(t *testing.T, r *rand.Rand, server peer.ID, n uint64) (credit.Receipt, bool) {
	base := x.last
	if base.Opened == 0 {
		base = credit.Receipt{ChainID: "dev-1", Client: x.id, Server: server, Opened: x.tab.Opened}
	}
	next, err := base.Add(n, tradePrice)
	if err != nil {
		t.Fatal(err)
	}
	switch x.kind {
	case "stops":
		if next.Bytes > 3<<20 {
			return next, false
		}
	case "vanishes", "never":
		return next, false
	case "stingy": // signs for half of what it got
		if next, err = base.Add(n/2, tradePrice); err != nil {
			t.Fatal(err)
		}
	case "cheap": // signs for all of it, and for half of the money
		next.Grains = base.Grains + (next.Grains-base.Grains)/2
	case "forks": // says less than before now and then
		if r.IntN(3) == 0 && base.Bytes > 0 {
			next = base
			next.Bytes, next.Sig = next.Bytes-1, nil
		}
	case "foreign": // another chain, another tab, another server
		switch r.IntN(3) {
		case 0:
			next.ChainID = "dev-2"
		case 1:
			next.Opened++
		case 2:
			_, next.Server = keyOf(t, 251)
		}
	case "forges": // another's signature
		key, _ := keyOf(t, 250)
		sig, err := key.Sign(next.SignBytes())
		if err != nil {
			t.Fatal(err)
		}
		next.Sig = sig
		return next, true
	case "replays":
		if base.Sig != nil && r.IntN(2) == 0 {
			return base, true
		}
	}
	if next, err = next.Sign(x.key); err != nil {
		t.Fatal(err)
	}
	return next, true
}

// TestExposureIsBoundedByAStep: whatever clients do, by seed and in virtual time,
// none gets more from a loaded server than it signed and has money for, one step,
// and the allowance; and honest ones get on.
func TestExposureIsBoundedByAStep(t *testing.T) { // spec §7.5
	kinds := []string{"honest", "stops", "forks", "foreign", "forges", "replays", "stingy", "cheap", "never", "vanishes", "broke"}
	_, server := keyOf(t, 255)
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 5))
		size := []int{16 << 10, 256 << 10, 256<<10 + 14, 1 << 20}[r.IntN(4)]
		w := newTown(t, tight(), 40<<20, size)
		w.q.owed = newOwed()
		var all []*trader
		by := map[*resident]*trader{}
		for i := range 3 * len(kinds) {
			x := &trader{resident: w.add(&resident{open: 8 + r.IntN(30), weight: uint64(r.IntN(3))}), kind: kinds[i%len(kinds)]}
			delete(w.peers, x.id)
			x.key, x.id = keyOf(t, byte(i))
			w.peers[x.id] = x.resident
			x.leaves = x.kind == "vanishes"
			x.tab = credit.Tab{Opened: 7, Deposited: 1 << 30}
			if x.kind == "broke" {
				x.tab.Deposited = 1 << 10 // a MiB's worth
			}
			x.till = till{chain: "dev-1", client: x.id, server: server, price: tradePrice, opened: 7}
			all = append(all, x)
			by[x.resident] = x
		}
		begun := w.now
		bound := func(x *trader) {
			most := int(max(credit.Step(x.paid), uint64(size)))
			if owes := int(w.q.owed.debt(w.now, x.id).owes); owes > most {
				t.Fatalf("seed %d: %s owes %d, at most %d", seed, x.kind, owes, most)
			}
			allowed := int((w.now - begun) * allowance / secondMicros)
			if x.lent > int(x.sure)+most+allowed {
				t.Fatalf("seed %d, blocks of %d: %s was lent %d bytes; it is sure to pay for %d, a step is %d, the allowance was %d", seed, size, x.kind, x.lent, x.sure, most, allowed)
			}
		}
		w.sent = func(res *resident, f frame) {
			x := by[res]
			if w.q.lines[x.id].job.bounded {
				x.lent += f.bytes()
			}
			bound(x)
		}
		for _, x := range w.order {
			w.ask(x)
		}
		w.act()
		for end := w.now + 20*secondMicros; w.now < end; {
			w.tick()
			for _, x := range all {
				if n := x.got - x.seen; n >= 96<<10 {
					x.seen = x.got
					rec, ok := x.signs(t, r, server, uint64(n))
					if !ok {
						continue
					}
					covers, no := x.till.accept(rec, x.tab)
					if no != nil {
						x.no++
						continue
					}
					x.last = rec
					x.paid += covers
					x.sure = min(rec.Bytes, uint64(min(rec.Grains, x.tab.Deposited))<<30/uint64(tradePrice))
					w.q.signed(w.now, x.id, covers, x.paid, x.weight)
				}
				bound(x)
			}
		}
		honest, refused := 1<<62, map[string]int{}
		for _, x := range all {
			if x.kind == "honest" {
				honest = min(honest, x.lent)
			}
			refused[x.kind] += x.no
			if _, _, err := x.tab.Claim(x.till.last, 200_000); x.paid > 0 && err != nil {
				t.Errorf("seed %d: %s: the last receipt pays nothing: %v", seed, x.kind, err)
			}
		}
		for _, x := range all {
			switch x.kind {
			case "foreign", "forges", "never", "vanishes", "broke":
				if size <= credit.MinStep && 2*x.lent > honest {
					t.Errorf("seed %d, blocks of %d: one who %s was lent %d bytes, the least of the honest %d", seed, size, x.kind, x.lent, honest)
				}
			}
		}
		for _, kind := range []string{"foreign", "forges", "forks"} {
			if refused[kind] == 0 {
				t.Errorf("seed %d: no receipt of one who %s was refused", seed, kind)
			}
		}
		if refused["honest"]+refused["replays"]+refused["stops"] > 0 {
			t.Errorf("seed %d: receipts of the honest were refused: %v", seed, refused)
		}
	}
}
