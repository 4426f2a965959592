package chain

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	ics23 "github.com/cosmos/ics23/go"

	"github.com/lode-node/lode/coin"
)

func testApp(t testing.TB, c AppConfig) *App {
	t.Helper()
	if c.Genesis.ChainID == "" {
		c.Genesis = testGenesis(t)
	}
	c.Audit = true
	a, err := OpenApp(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func closeApp(t testing.TB, a *App) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// testBlocks returns n blocks of transfers among five accounts, some refused.
func testBlocks(t testing.TB, n int) []*abci.RequestFinalizeBlock {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"alice", "bob", "carol", "dave", "erin"}
	nonces := map[string]uint64{}
	var out []*abci.RequestFinalizeBlock
	for h := range n {
		b := &abci.RequestFinalizeBlock{
			Height: int64(h + 1), Hash: bytes.Repeat([]byte{byte(h)}, 32), Time: time.Unix(int64(1_800_000_000+h), 0),
		}
		for range r.IntN(6) {
			from, to := names[r.IntN(2)], names[r.IntN(5)]
			nonces[from]++
			tx, err := Sign(testKey(t, from), Body{
				ChainID: "dev-test", Nonce: nonces[from], Fee: coin.LODE,
				Msg: send(testID(t, to), coin.Amount(r.Uint64N(uint64(200*coin.LODE)))),
			})
			if err != nil {
				t.Fatal(err)
			}
			b.Txs = append(b.Txs, tx)
		}
		out = append(out, b)
	}
	return out
}

func play(t testing.TB, a *App, b *abci.RequestFinalizeBlock) []byte {
	t.Helper()
	r, err := a.FinalizeBlock(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
		t.Fatal(err)
	}
	if got := a.View().AppHash(); !bytes.Equal(got, r.AppHash) {
		t.Fatalf("height %d: committed %x, promised %x", b.Height, got, r.AppHash)
	}
	return r.AppHash
}

// TestReplay plays the same blocks to two Apps, one restarted half-way and one
// asked for each block twice before it commits.
func TestReplay(t *testing.T) { // spec §1.6
	blocks := testBlocks(t, 40)
	one, dir := testApp(t, AppConfig{}), t.TempDir()
	defer closeApp(t, one)
	two := testApp(t, AppConfig{Dir: dir})
	for i, b := range blocks {
		if i == len(blocks)/2 {
			closeApp(t, two)
			two = testApp(t, AppConfig{Dir: dir})
		}
		if _, err := one.FinalizeBlock(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		if x, y := play(t, one, b), play(t, two, b); !bytes.Equal(x, y) {
			t.Fatalf("height %d: %x and %x", b.Height, x, y)
		}
	}
	closeApp(t, two)
}

// TestCrashBetweenTreeAndView dies after the tree's batch of a height and before
// the view's: on open the height never was, and playing it again gives the same.
func TestCrashBetweenTreeAndView(t *testing.T) {
	for _, height := range []int{1, 2, 9} {
		t.Run(fmt.Sprint(height), func(t *testing.T) {
			blocks, fs := testBlocks(t, 12), vfs.NewMem()
			whole := testApp(t, AppConfig{})
			defer closeApp(t, whole)
			a := testApp(t, AppConfig{memory: fs})
			for _, b := range blocks[:height-1] {
				play(t, whole, b)
				play(t, a, b)
			}
			if _, err := a.FinalizeBlock(context.Background(), blocks[height-1]); err != nil {
				t.Fatal(err)
			}
			if _, err := a.store.tree.Save(); err != nil { // and here it dies
				t.Fatal(err)
			}
			closeApp(t, a)

			a = testApp(t, AppConfig{memory: fs})
			defer closeApp(t, a)
			info, err := a.Info(context.Background(), &abci.RequestInfo{})
			if err != nil {
				t.Fatal(err)
			}
			if info.LastBlockHeight != int64(height-1) {
				t.Fatalf("height %d after the crash, want %d", info.LastBlockHeight, height-1)
			}
			for _, b := range blocks[height-1:] {
				if x, y := play(t, whole, b), play(t, a, b); !bytes.Equal(x, y) {
					t.Fatalf("height %d: %x, after the crash %x", b.Height, x, y)
				}
			}
			if err := a.store.compare(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADamagedViewIsNoticed(t *testing.T) {
	fs := vfs.NewMem()
	a := testApp(t, AppConfig{memory: fs})
	play(t, a, testBlocks(t, 1)[0])
	key := physical(accounts.raw(testID(t, "alice")))
	if err := a.store.db.Set(key, encode(account{Free: 1 << 40}), nil); err != nil {
		t.Fatal(err)
	}
	closeApp(t, a)
	_, err := OpenApp(AppConfig{memory: fs, Genesis: testGenesis(t), Audit: true})
	if err == nil || !strings.Contains(err.Error(), "1 records differ") {
		t.Errorf("%v, want that one record differs", err)
	}
}

func TestAStoreOfAnotherChainIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	a := testApp(t, AppConfig{memory: fs})
	play(t, a, testBlocks(t, 1)[0])
	closeApp(t, a)
	g := testGenesis(t)
	g.ChainID = "dev-other"
	if _, err := OpenApp(AppConfig{memory: fs, Genesis: g}); err == nil || !strings.Contains(err.Error(), `"dev-other"`) {
		t.Errorf("%v, want a refusal naming dev-other", err)
	}
	g = testGenesis(t)
	g.Accounts[0].Free++
	if _, err := OpenApp(AppConfig{memory: fs, Genesis: g}); err == nil || !strings.Contains(err.Error(), "another genesis") {
		t.Errorf("%v, want a refusal of another genesis", err)
	}
}

func TestBlocksComeInOrder(t *testing.T) {
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	b := testBlocks(t, 3)
	play(t, a, b[0])
	if _, err := a.FinalizeBlock(context.Background(), b[2]); err == nil || !strings.Contains(err.Error(), "the next is 2") {
		t.Errorf("%v, want that 2 is next", err)
	}
	if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err == nil {
		t.Error("committed nothing")
	}
}

// TestProofs checks against the app hash that a record is there, or is not.
func TestProofs(t *testing.T) { // spec §1.6
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	for _, b := range testBlocks(t, 5) {
		play(t, a, b)
	}
	root := a.View().AppHash()
	prove := func(key []byte) ([]byte, *ics23.CommitmentProof) {
		value, raw, err := a.store.tree.Prove(5, key)
		if err != nil {
			t.Fatal(err)
		}
		var p ics23.CommitmentProof
		if err := p.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
		return value, &p
	}
	alice, nobody := accounts.raw(testID(t, "alice")), accounts.raw(testID(t, "nobody"))
	value, p := prove(alice)
	if !ics23.VerifyMembership(ics23.IavlSpec, root, p, alice, value) {
		t.Error("the proof of alice's account does not hold")
	}
	if ics23.VerifyMembership(ics23.IavlSpec, root, p, nobody, value) {
		t.Error("alice's proof proves nobody's account")
	}
	if value, p := prove(nobody); value != nil || !ics23.VerifyNonMembership(ics23.IavlSpec, root, p, nobody) {
		t.Errorf("value %x of nobody, or its absence is not proved", value)
	}
}

func TestOldVersionsAreForgottenInSteps(t *testing.T) {
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	for _, b := range testBlocks(t, 12) {
		play(t, a, b)
	}
	a.store.height += keepVersions // as if so many more had come
	for _, first := range []int64{4, 7, 10} {
		if err := a.store.prune(); err != nil {
			t.Fatal(err)
		}
		if got := a.store.tree.First(); got != first {
			t.Errorf("oldest version %d, want %d", got, first)
		}
	}
	a.store.height -= keepVersions
	if err := a.store.compare(); err != nil {
		t.Error(err)
	}
}

// TestFastNodesAreOff: readers beside commits have forked chains that had them.
func TestFastNodesAreOff(t *testing.T) {
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	play(t, a, testBlocks(t, 1)[0])
	if on, err := a.store.tree.(*iavlEngine).tree.IsFastCacheEnabled(); err != nil || on {
		t.Errorf("fast nodes on: %v, %v", on, err)
	}
}
