package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// TestNothingIsReplacedUnasked gives transactions to this very node: with the nonce
// of one that waits only what names that one is taken, whatever it bids, while what
// another node passes on was asked for there (spec §2.2).
func TestNothingIsReplacedUnasked(t *testing.T) {
	zero := [32]byte{}
	old := bidder(t, "p1", 2, coin.LODE) // waits for the nonce before: in no block
	hash := sha256.Sum256(old)
	for _, c := range []struct {
		name  string
		nonce uint64
		bid   coin.Amount
		names *[32]byte // nil: comes from another node
		code  uint32
		text  string
	}{
		{"replaces", 2, 2 * coin.LODE, &hash, CodeOK, ""},
		{"passed on", 2, 2 * coin.LODE, nil, CodeOK, ""},
		{"names none", 2, 2 * coin.LODE, &zero, CodeTaken, fmt.Sprintf("transaction %x, which waits for a block", hash)},
		{"names none and bids too little", 2, 0, &zero, CodeTaken, "nonce 2"},
		{"names another", 2, 2 * coin.LODE, &[32]byte{1}, CodeAbsent, "0100000000"},
		{"names one of another nonce", 3, 2 * coin.LODE, &hash, CodeAbsent, "nonce 3"},
		{"bids as much", 2, coin.LODE, &hash, CodeOK, ""}, // it is the same
		{"bids a grain more", 2, coin.LODE + 1, &hash, CodeStale, "bid of 1.000000001 LODE is too low"},
		{"passed on with a grain more", 2, coin.LODE + 1, nil, CodeStale, "bid 1.125"},
		{"another nonce", 1, 0, &zero, CodeOK, ""},
	} {
		s := payers(t, 50, "p1")
		if err := s.Enter(old); err != nil {
			t.Fatal(err)
		}
		tx := bidder(t, "p1", c.nonce, c.bid)
		_, err := s.enter(tx, c.names)
		code, text := codeOf(err)
		if code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: code %d, %q; want %d and %q", c.name, code, text, c.code, c.text)
		}
		want := [][32]byte{hash}
		switch {
		case code == CodeOK && c.nonce == 1:
			want = [][32]byte{sha256.Sum256(tx), hash}
		case code == CodeOK:
			want = [][32]byte{sha256.Sum256(tx)}
		}
		q := s.Queue(testID(t, "p1"))
		var got [][32]byte
		for _, p := range q.Waiting {
			got = append(got, p.Hash)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %x wait, want %x", c.name, got, want)
		}
		if next := uint64(1 + 2*(len(want)-1)); q.Next != next {
			t.Errorf("%s: the next nonce is %d, want %d", c.name, q.Next, next)
		}
		if len(s.app.pool.doors) != 0 {
			t.Errorf("%s: %d doors stay open", c.name, len(s.app.pool.doors))
		}
	}
}

// TestTwoThatSendAtOnceArePaidBoth has two that hold one key send before a block:
// the wallet takes the nonce behind what waits, and the next when it lost the race.
func TestTwoThatSendAtOnceArePaidBoth(t *testing.T) {
	s := payers(t, 50, "p1")
	one, err := s.As(testKey(t, "p1"))
	if err != nil {
		t.Fatal(err)
	}
	raced := false
	for i := range 3 {
		_, err := one.wallet.submit(one.View, func() func(id peer.ID) Queue {
			return func(id peer.ID) Queue {
				q := one.Queue(id)
				if i == 1 && !raced { // another window is quicker
					raced = true
					if err := s.Enter(bidder(t, "p1", q.Next, coin.LODE)); err != nil {
						t.Fatal(err)
					}
				}
				return q
			}
		}(), send(testID(t, "carol"), 1), func(tx []byte) error {
			_, err := one.enter(tx, new([32]byte))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if b := s.Block(); len(b.Txs) != 4 || !raced {
		t.Errorf("block of %d, raced %v; want all four", len(b.Txs), raced)
	}
}

// TestWhoLeavesIsToldTheTruth asks why a transaction has left: for as long as this
// node knows, it names what took its place, or used its nonce.
func TestWhoLeavesIsToldTheTruth(t *testing.T) {
	s := payers(t, 50, "p1")
	cheap, dear := bidder(t, "p1", 1, 0), bidder(t, "p1", 1, coin.LODE)
	hash := sha256.Sum256(dear)
	told := func(when string, kind abci.CheckTxType, want string) {
		t.Helper()
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: cheap, Type: kind})
		if err != nil || r.Code != CodeStale || !strings.Contains(r.Log, want) {
			t.Errorf("%s: code %d, %q, %v; want CodeStale and %q", when, r.Code, r.Log, err, want)
		}
	}
	for _, tx := range [][]byte{cheap, dear} {
		if code := checkTx(t, s.app, tx, abci.CheckTxType_New); code != CodeOK {
			t.Fatalf("code %d", code)
		}
	}
	replaced := fmt.Sprintf("was replaced by %x with the same nonce 1 of %v and a bid of 1 LODE", hash, testID(t, "p1"))
	told("before a block", abci.CheckTxType_New, replaced)
	finalize(t, s.app) // without either
	told("checked again", abci.CheckTxType_Recheck, replaced)
	if code := checkTx(t, s.app, dear, abci.CheckTxType_Recheck); code != CodeOK {
		t.Fatalf("code %d", code)
	}
	shut := s.app.Door(sha256.Sum256(cheap), [32]byte{})
	told("sent again", abci.CheckTxType_New, replaced)
	shut()
	told("passed on again", abci.CheckTxType_New, "bid of 0 LODE is too low")
	finalize(t, s.app, dear)
	told("after its block", abci.CheckTxType_Recheck, fmt.Sprintf("nonce 1 of %v was used by transaction %x in block 3: the next is 2", testID(t, "p1"), hash))
	finalize(t, s.app)
	told("long after", abci.CheckTxType_New, fmt.Sprintf("nonce 1 of %v was used: the next is 2", testID(t, "p1")))

	// In the very next block: it was replaced, and the nonce is used as well.
	s = payers(t, 50, "p1")
	for _, tx := range [][]byte{cheap, dear} {
		if code := checkTx(t, s.app, tx, abci.CheckTxType_New); code != CodeOK {
			t.Fatalf("code %d", code)
		}
	}
	finalize(t, s.app, dear)
	told("in one block", abci.CheckTxType_Recheck, fmt.Sprintf("used by transaction %x in block 2, which replaced this one with a bid of 1 LODE: the next is 2", hash))
}

// TestWhatLeavesAGapHasLittleRoom sends, from many accounts, what waits for a nonce
// that never comes: it is in no block, pays nothing, and filled the pool for good
// (spec §2.2).
func TestWhatLeavesAGapHasLittleRoom(t *testing.T) {
	names := []string{"g1", "g2", "g3", "g4", "g5", "honest"}
	s := payers(t, 32, names...)
	taken := 0
	for _, name := range names[:5] {
		for nonce := uint64(2); nonce < 10; nonce++ {
			r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: bidder(t, name, nonce, 50*coin.LODE)})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case r.Code == CodeOK:
				taken++
			case r.Code != CodeFar || !strings.Contains(r.Log, "send nonce 1 first"):
				t.Fatalf("code %d, %q", r.Code, r.Log)
			}
		}
	}
	if taken != 32/gapPart {
		t.Errorf("%d that leave a gap are taken, want %d of 32", taken, 32/gapPart)
	}
	for nonce := range uint64(29) { // the rest of the room is there for who pays
		if code := checkTx(t, s.app, bidder(t, "honest", nonce+1, 0), abci.CheckTxType_New); code != CodeOK {
			t.Fatalf("nonce %d of another account: code %d", nonce+1, code)
		}
	}
	// Full but for one: what fills a gap is as good as any, what leaves one takes no room of others.
	if code := checkTx(t, s.app, bidder(t, "g1", 1, coin.LODE), abci.CheckTxType_New); code != CodeOK {
		t.Errorf("the nonce that was missing: code %d", code)
	}
	if code := checkTx(t, s.app, bidder(t, "g2", 9, 60*coin.LODE), abci.CheckTxType_New); code != CodeFar {
		t.Errorf("a gap in a full pool: code %d", code)
	}
}

// TestWhatWaitsCanBePaid fills the pool with transactions of which the account can
// pay one, or sends its money away with the first: either held the room of many for
// the fee of one (spec §2.2).
func TestWhatWaitsCanBePaid(t *testing.T) {
	fee := func(s *Solo, raw []byte) coin.Amount {
		tx, err := DecodeTx(raw)
		if err != nil {
			t.Fatal(err)
		}
		return s.View().Params().Fees.Cost(tx)
	}
	pay := func(nonce uint64, x, bid coin.Amount) []byte {
		tx, err := Sign(testKey(t, "p1"), Body{ChainID: "dev-test", Nonce: nonce, Fee: 900 * coin.LODE, Bid: bid, Msg: send(testID(t, "bob"), x)})
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	for _, c := range []struct {
		name   string
		first  []byte
		second []byte
		code   uint32
	}{
		{"both can be paid", pay(1, 1, 400*coin.LODE), pay(2, 1, 400*coin.LODE), CodeOK},
		{"one can be paid", pay(1, 1, 600*coin.LODE), pay(2, 1, 600*coin.LODE), CodeShort},
		{"the first sends all away", pay(1, 1000*coin.LODE-fee(payers(t, 0, "p1"), pay(1, 1000*coin.LODE, 0)), 0), pay(2, 1, 0), CodeShort},
		{"the first sends more than there is, and fails", pay(1, 2000*coin.LODE, 0), pay(2, 1, 0), CodeOK},
		{"it takes the place of the first", pay(1, 1, 600*coin.LODE), pay(1, 1, 700*coin.LODE), CodeOK},
	} {
		s := payers(t, 50, "p1")
		if code := checkTx(t, s.app, c.first, abci.CheckTxType_New); code != CodeOK {
			t.Fatalf("%s: the first: code %d", c.name, code)
		}
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: c.second})
		if err != nil || r.Code != c.code || r.Code == CodeShort && !strings.Contains(r.Log, "what waits for a block takes") {
			t.Errorf("%s: code %d, %q, %v; want %d", c.name, r.Code, r.Log, err, c.code)
		}
		if r.Code == CodeShort {
			finalize(t, s.app)
			if code := checkTx(t, s.app, c.first, abci.CheckTxType_Recheck); code != CodeOK {
				t.Errorf("%s: checked again, the first: code %d", c.name, code)
			}
		}
	}
}

// TestAShortOneDoesNotReplaceALongOneForLess takes the place of a hundred kilobytes
// that all nodes have passed on: a short transaction pays more for a byte anyhow, and
// far less in all (spec §2.2).
func TestAShortOneDoesNotReplaceALongOneForLess(t *testing.T) {
	s := payers(t, 0, "p1")
	long, err := Sign(testKey(t, "p1"), Body{ChainID: "dev-test", Nonce: 1, Fee: coin.LODE, Msg: Msg{Announce: &Announce{Addrs: [][]byte{make([]byte, 50<<10)}}}})
	if err != nil {
		t.Fatal(err)
	}
	if code := checkTx(t, s.app, long, abci.CheckTxType_New); code != CodeOK {
		t.Fatalf("code %d", code)
	}
	tx, err := DecodeTx(long)
	if err != nil {
		t.Fatal(err)
	}
	fees := s.View().Params().Fees
	short, err := DecodeTx(bidder(t, "p1", 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !fees.price(short).over(fees.price(tx)) {
		t.Fatal("the short one does not pay more for a byte")
	}
	if code := checkTx(t, s.app, bidder(t, "p1", 1, 0), abci.CheckTxType_New); code != CodeStale {
		t.Errorf("a short one without a bid: code %d", code)
	}
	bid := fees.Outbid(short, fees.Cost(tx), tx.Size)
	if code := checkTx(t, s.app, bidder(t, "p1", 1, bid-1), abci.CheckTxType_New); code != CodeStale {
		t.Errorf("a grain below the least bid, %v: code %d", bid, code)
	}
	dear := bidder(t, "p1", 1, bid)
	if code := checkTx(t, s.app, dear, abci.CheckTxType_New); code != CodeOK {
		t.Errorf("the least bid, %v: code %d", bid, code)
	}
	if now, err := DecodeTx(dear); err != nil || fees.Cost(now) < fees.Cost(tx)+fees.Cost(tx)/replacePart {
		t.Errorf("it pays %v after %v, %v; want an eighth more", fees.Cost(now), fees.Cost(tx), err)
	}
}

// TestOutbidIsTheLeast compares with trying bids one by one (spec §2.2).
func TestOutbidIsTheLeast(t *testing.T) {
	fees := payers(t, 0, "p1").View().Params().Fees
	build := func(bid coin.Amount) Tx {
		tx, err := DecodeTx(bidder(t, "p1", 1, bid))
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	enough := func(bid coin.Amount, old price) bool {
		tx := build(bid)
		return fees.Cost(tx) >= old.dearer(tx.Size)
	}
	plain := build(0)
	for _, size := range []int{plain.Size - 50, plain.Size, plain.Size + 8, 3 * plain.Size} {
		for _, more := range []coin.Amount{0, 3, 40_000, 90_000, 70_000_000, 9 * coin.LODE} {
			old := price{fees.Cost(plain)/2 + more, size}
			for _, from := range []coin.Amount{0, 7, coin.LODE} {
				got := fees.Outbid(build(from), old.fee, old.size)
				if !enough(got, old) || got > 0 && enough(got-1, old) {
					t.Errorf("over %v for %d bytes, from a bid of %v: %d is not the least", old.fee, size, from, got)
				}
			}
		}
	}
}

// TestAReplacedOneIsInNoProposal is what a user counts on who replaces a payment: no
// proposer of this node brings both, or the first (spec §2.2).
func TestAReplacedOneIsInNoProposal(t *testing.T) {
	s := payers(t, 50, "p1")
	first, second := bidder(t, "p1", 1, 0), bidder(t, "p1", 1, coin.LODE)
	gone := make(chan error, 1)
	done, err := s.enter(first, new([32]byte))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		r := <-done
		gone <- r.Err()
	}()
	hash := sha256.Sum256(first)
	if _, err := s.enter(second, &hash); err != nil {
		t.Fatal(err)
	}
	b := s.Block()
	if len(b.Txs) != 1 || !bytes.Equal(b.Txs[0].Hash[:], hashOfTx(second)) {
		t.Errorf("block %+v, want the second alone", b.Txs)
	}
	var e *Error
	if err := <-gone; !errors.As(err, &e) || e.Code != CodeStale || !strings.Contains(e.Text, "which replaced this one") {
		t.Errorf("who sent the first is told %v", err)
	}
	if p := s.Pool(); p.Replaced != 1 || p.Waiting != 0 || p.Bytes != 0 {
		t.Errorf("pool %+v after the block", p)
	}
}

func hashOfTx(tx []byte) []byte {
	h := sha256.Sum256(tx)
	return h[:]
}
