package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/lode-node/lode/coin"
)

// payers is a chain with accounts that have money, by name.
func payers(t *testing.T, waiting int, names ...string) *Solo {
	t.Helper()
	g := testGenesis(t)
	for _, name := range names {
		g.Accounts = append(g.Accounts, GenesisAccount{testID(t, name), 1000 * coin.LODE})
	}
	app, err := OpenApp(AppConfig{Genesis: g, Audit: true, waiting: waiting})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeApp(t, app) })
	s := testSolo(t, SoloConfig{App: app})
	s.Block()
	return s
}

// bidder is a transfer of name with a bid.
func bidder(t *testing.T, name string, nonce uint64, bid coin.Amount) []byte {
	t.Helper()
	tx, err := Sign(testKey(t, name), Body{ChainID: "dev-test", Nonce: nonce, Fee: 100 * coin.LODE, Bid: bid, Msg: send(testID(t, "bob"), 1)})
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func checkTx(t *testing.T, a *App, tx []byte, kind abci.CheckTxType) uint32 {
	t.Helper()
	r, err := a.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx, Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	return r.Code
}

// TestWhoPaysMoreGoesFirst orders a proposal by what is paid for a byte, and the
// transactions of each sender by nonce (spec §2.2).
func TestWhoPaysMoreGoesFirst(t *testing.T) {
	s := payers(t, 0, "p1", "p2", "p3")
	var (
		cheap    = bidder(t, "p1", 1, 0)
		behind   = bidder(t, "p1", 2, 50*coin.LODE) // pays best, and waits for the one before
		better   = bidder(t, "p2", 1, coin.LODE)
		then     = bidder(t, "p2", 2, coin.LODE/2)
		best     = bidder(t, "p3", 1, 2*coin.LODE)
		mempool  = [][]byte{behind, cheap, then, better, best}
		want     = [][]byte{best, better, then, cheap, behind}
		request  = &abci.RequestPrepareProposal{Txs: mempool, MaxTxBytes: 1 << 20, Height: 2}
		proposed = s.app.arrange(request)
	)
	if len(proposed) != len(want) {
		t.Fatalf("%d transactions, want %d", len(proposed), len(want))
	}
	for i := range want {
		if !bytes.Equal(proposed[i], want[i]) {
			t.Errorf("at %d stands %x, want %x", i, proposed[i][:40], want[i][:40])
		}
	}
	for i, r := range finalize(t, s.app, proposed...).TxResults {
		if r.Code != CodeOK {
			t.Errorf("transaction %d: code %d, %q", i, r.Code, r.Log)
		}
	}
	fees := s.View().Params().Fees
	paid := 1000*coin.LODE - s.View().Account(testID(t, "p3")).Free - 1
	tx, err := DecodeTx(best)
	if err != nil {
		t.Fatal(err)
	}
	if plain := fees.Base + fees.Byte*coin.Amount(tx.Size) + fees.Verify; paid != plain+2*coin.LODE {
		t.Errorf("it cost %v, want %v and the bid", paid, plain)
	}
	// With room for one, it is the one that pays best for its bytes.
	request.Txs, request.MaxTxBytes = [][]byte{bidder(t, "p1", 3, 0), bidder(t, "p2", 3, 10_000)}, wireSize(cheap)+10
	request.Height = s.View().Height() + 1
	if got := s.app.arrange(request); len(got) != 1 || !bytes.Equal(got[0], request.Txs[1]) {
		t.Errorf("room for one is taken by %d transactions, the first the cheap one", len(got))
	}
}

func TestABidIsPaidOnlyWithANonce(t *testing.T) { // spec §2.2
	s := payers(t, 0, "p1")
	for _, c := range []struct {
		name  string
		spoil func(*Body)
		code  uint32
	}{
		{"valid", func(*Body) {}, CodeOK},
		{"more than the sender allows", func(b *Body) { b.Bid = b.Fee }, CodeFee},
		{"more than the sender has", func(b *Body) { b.Fee, b.Bid = 5000*coin.LODE, 4000*coin.LODE }, CodeShort},
		{"more than there can be", func(b *Body) { b.Fee, b.Bid = math.MaxUint64, math.MaxUint64 }, CodeShort},
		{"without a nonce", func(b *Body) { b.Nonce = 0 }, CodeFee},
	} {
		b := Body{ChainID: "dev-test", Nonce: 1, Fee: 10 * coin.LODE, Bid: coin.LODE, Msg: send(testID(t, "bob"), 1)}
		c.spoil(&b)
		tx, err := Sign(testKey(t, "p1"), b)
		if err != nil {
			t.Fatal(err)
		}
		if code := checkTx(t, s.app, tx, abci.CheckTxType_New); code != c.code {
			t.Errorf("%s: code %d, want %d", c.name, code, c.code)
		}
	}
}

// TestWhoPaysMoreFindsRoomInAFullPool lets transactions give way: to those only
// that pay more for a byte, the last of an account first, and so many that
// reports have their room all the same (spec §2.2).
func TestWhoPaysMoreFindsRoomInAFullPool(t *testing.T) {
	s := payers(t, 5, "a1", "a2", "a3", "a4", "rich")
	enter := func(name string, nonce uint64, bid coin.Amount) ([]byte, uint32) {
		tx := bidder(t, name, nonce, bid)
		return tx, checkTx(t, s.app, tx, abci.CheckTxType_New)
	}
	var full [][]byte
	for _, x := range []struct {
		name  string
		nonce uint64
		bid   coin.Amount
	}{{"a1", 1, 10_000}, {"a1", 2, 500_000}, {"a2", 1, 20_000}, {"a3", 1, 300_000}, {"a4", 1, 300_000}} {
		tx, code := enter(x.name, x.nonce, x.bid)
		if code != CodeOK {
			t.Fatalf("%+v: code %d", x, code)
		}
		full = append(full, tx)
	}
	if _, code := enter("rich", 1, 0); code != CodeStopped {
		t.Errorf("one that pays less is taken: code %d", code)
	}
	rich, code := enter("rich", 1, 30_000) // more than a1's first, which has another behind it, and a2's
	if code != CodeOK {
		t.Fatalf("one that pays more: code %d", code)
	}
	if _, code := enter("rich", 2, coin.LODE); code != CodeStopped {
		t.Errorf("a second fifth of the pool is taken: code %d", code)
	}
	if code := checkTx(t, s.app, full[2], abci.CheckTxType_New); code != CodeStopped {
		t.Errorf("what gave way is taken again before the next block: code %d", code)
	}
	got := s.app.arrange(&abci.RequestPrepareProposal{Txs: append(full, rich), MaxTxBytes: 1 << 20, Height: 2})
	if len(got) != 5 || !bytes.Contains(bytes.Join(got, nil), rich) || bytes.Contains(bytes.Join(got, nil), full[2]) {
		t.Errorf("a proposal of %d, want all five but what gave way", len(got))
	}
	finalize(t, s.app) // of another proposer: empty
	for i, tx := range full {
		want := CodeOK
		if i == 2 {
			want = CodeStopped
		}
		if code := checkTx(t, s.app, tx, abci.CheckTxType_Recheck); code != want {
			t.Errorf("checked again, transaction %d has code %d, want %d", i, code, want)
		}
	}
	if code := checkTx(t, s.app, rich, abci.CheckTxType_Recheck); code != CodeOK {
		t.Errorf("checked again, who paid more has code %d", code)
	}
	finalize(t, s.app, rich)
	if code := checkTx(t, s.app, full[2], abci.CheckTxType_New); code != CodeOK {
		t.Errorf("sent again after a block: code %d", code)
	}
}

// TestABidTakesThePlaceOfWhatWaits sends another transaction with the nonce of one
// that waits: the refusal names the bid that it takes, and with it the other goes
// and what waits behind it stays (spec §2.2).
func TestABidTakesThePlaceOfWhatWaits(t *testing.T) {
	s := payers(t, 50, "p1", "p2")
	enter := func(tx []byte) (uint32, string) {
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
		if err != nil {
			t.Fatal(err)
		}
		return r.Code, r.Log
	}
	cheap, behind, other := bidder(t, "p1", 1, 0), bidder(t, "p1", 2, 0), bidder(t, "p2", 1, coin.LODE)
	for _, tx := range [][]byte{cheap, behind, other} {
		if code, text := enter(tx); code != CodeOK {
			t.Fatal(text)
		}
	}
	code, text := enter(bidder(t, "p1", 1, 1))
	_, text, _ = strings.Cut(text, ": bid ")
	text, _, _ = strings.Cut(text, " or more")
	need, err := coin.Parse(text)
	if code != CodeStale || err != nil {
		t.Fatalf("a bid of a grain: code %d, names a bid of %q: %v", code, text, err)
	}
	if code, _ := enter(bidder(t, "p1", 1, need-1)); code != CodeStale {
		t.Errorf("a grain less than the bid that was named: code %d", code)
	}
	dear := bidder(t, "p1", 1, need)
	if code, text := enter(dear); code != CodeOK {
		t.Fatalf("the bid that was named: %s", text)
	}
	if code, text := enter(cheap); code != CodeStale || !strings.Contains(text, fmt.Sprintf("replaced by %x", sha256.Sum256(dear))) {
		t.Errorf("what gave way is taken again: code %d, %s", code, text)
	}
	all := [][]byte{cheap, behind, other, dear}
	got := s.app.arrange(&abci.RequestPrepareProposal{Txs: all, MaxTxBytes: 1 << 20, Height: 2})
	if want := [][]byte{other, dear, behind}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("a proposal of %d, want the other account's, the dearer one, and what waits behind the first", len(got))
	}
	finalize(t, s.app) // of another proposer: empty
	for i, want := range []uint32{CodeStale, CodeOK, CodeOK, CodeOK} {
		if code := checkTx(t, s.app, all[i], abci.CheckTxType_Recheck); code != want {
			t.Errorf("checked again, transaction %d has code %d, want %d", i, code, want)
		}
	}
	finalize(t, s.app, dear)
	if r, _ := s.app.View().Tx(sha256.Sum256(dear)); r.Fee == 0 {
		t.Error("the dearer one is in no block")
	}
	if code, text := enter(cheap); code != CodeStale || !strings.Contains(text, fmt.Sprintf("was used by transaction %x in block 3", sha256.Sum256(dear))) {
		t.Errorf("the cheaper one after that: code %d, %s", code, text)
	}
}

// TestFewGiveWayToTheirOwn replaces what waits again and again: between two blocks
// only half of what may give way does so, and what is not let in changes nothing.
func TestFewGiveWayToTheirOwn(t *testing.T) {
	s := payers(t, 20, "p1", "p2") // four may give way
	last := bidder(t, "p1", 1, 0)
	if code := checkTx(t, s.app, last, abci.CheckTxType_New); code != CodeOK {
		t.Fatalf("code %d", code)
	}
	taken := 0
	for i := range 6 {
		tx := bidder(t, "p1", 1, coin.LODE<<i)
		switch code := checkTx(t, s.app, tx, abci.CheckTxType_New); code {
		case CodeOK:
			last = tx
			taken++
		case CodeStopped:
		default:
			t.Fatalf("replaced %d times: code %d", taken, code)
		}
	}
	if taken != 2 {
		t.Errorf("replaced %d times before a block, want 2: others need the rest", taken)
	}
	if got := s.app.arrange(&abci.RequestPrepareProposal{Txs: [][]byte{last}, MaxTxBytes: 1 << 20, Height: 2}); len(got) != 1 {
		t.Error("the last that was taken is not proposed")
	}
	finalize(t, s.app)
	if code := checkTx(t, s.app, last, abci.CheckTxType_Recheck); code != CodeOK {
		t.Errorf("checked again: code %d", code)
	}
	if code := checkTx(t, s.app, bidder(t, "p1", 1, coin.LODE<<5), abci.CheckTxType_New); code != CodeOK {
		t.Errorf("after a block: code %d", code)
	}
}

// TestByPriceFollowsTheSlowTwin compares with the rule as it is said: time and
// again the sender whose next transaction pays most for a byte.
func TestByPriceFollowsTheSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var offers []offer
		nonces := map[string]uint64{}
		for i := range rng.IntN(40) {
			who := fmt.Sprint("s", rng.IntN(6))
			nonces[who]++
			o := offer{price: price{coin.Amount(rng.IntN(5)), 1 + rng.IntN(3)}, age: i}
			o.tx.Body.Sender, o.tx.Body.Nonce = testID(t, who), nonces[who]
			offers = append(offers, o)
		}
		shuffled := append([]offer(nil), offers...)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got := byPrice(shuffled)
		for n := range got {
			next := -1 // of those left, the first of each sender that pays most, then the oldest
			for i, o := range offers {
				first := true
				for _, x := range offers[:i] {
					first = first && x.tx.Body.Sender != o.tx.Body.Sender
				}
				if first && (next < 0 || o.price.over(offers[next].price)) {
					next = i
				}
			}
			if got[n].age != offers[next].age {
				t.Fatalf("at %d stands %d, want %d", n, got[n].age, offers[next].age)
			}
			offers = append(offers[:next:next], offers[next+1:]...)
		}
		if len(offers) != 0 {
			t.Fatalf("%d are left out", len(offers))
		}
	}
}
