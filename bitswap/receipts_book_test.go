package bitswap

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

func bookOn(t *testing.T, fs vfs.FS, most int) *receiptBook {
	t.Helper()
	k, err := openReceiptsOn(fs, "receipts", most)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// none knows no debts.
func none(peer.ID) (int64, bool) { return 0, false }

// TestReceiptsSurvivePowerLoss cuts the power at any moment, keeping a random part
// of what was not synced: each receipt that keep returned from is there or a later
// one is, and so is all that was spent.
func TestReceiptsSurvivePowerLoss(t *testing.T) { // spec §7.5: durable
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewCrashableMem()
		k := bookOn(t, fs, keptMost)
		sure := map[peer.ID]credit.Receipt{}
		spent := purse{Period: 3}
		for n := range 60 {
			rec := signedBy(t, byte(r.IntN(5)), 200, 7, uint64(n+1), uint64(n+1))
			if _, err := k.keep(rec, 1, int64(n)); err != nil {
				t.Fatal(err)
			}
			sure[rec.Client] = rec
			spent.spend("server", 2)
			if err := k.spend(spent.copy()); err != nil {
				t.Fatal(err)
			}
		}
		after := bookOn(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(seed, 4))}), keptMost)
		for p, want := range sure {
			if got := after.client(p).of(7); got.Bytes != want.Bytes || got.Verify() != nil {
				t.Errorf("seed %d: of %v the receipt for %d bytes is left, want %d", seed, p, got.Bytes, want.Bytes)
			}
		}
		if got := after.spent(); got.Spent != 120 || got.Period != 3 || got.By["server"] != 120 {
			t.Errorf("seed %d: %+v is known to be spent, want 120 grains", seed, got)
		}
		for _, k := range []*receiptBook{k, after} {
			if err := k.close(none); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestReceiptsOfAClientSurviveARestart(t *testing.T) {
	fs := vfs.NewMem()
	k := bookOn(t, fs, keptMost)
	for opened := range int64(tabsKept + 2) {
		if _, err := k.keep(signedBy(t, 1, 2, opened+1, 100, 10), 50, 9); err != nil {
			t.Fatal(err)
		}
	}
	_, client := keyOf(t, 1)
	if err := k.close(func(p peer.ID) (int64, bool) { return 77, p == client }); err != nil {
		t.Fatal(err)
	}
	if _, err := k.keep(signedBy(t, 1, 2, 9, 100, 10), 50, 9); err == nil {
		t.Error("a closed book took a receipt")
	}
	k = bookOn(t, fs, keptMost)
	c := k.client(client)
	if rs := c.receipts(); c.Paid != 50*(tabsKept+2) || c.Owes != 77 || len(rs) != tabsKept || rs[0].Opened != 3 {
		t.Errorf("after a restart: paid %d, owes %d, %d receipts", c.Paid, c.Owes, len(rs))
	}
	n, err := k.drop(func(r credit.Receipt) bool { return r.Opened < 5 })
	if err != nil || n != 2 || len(k.all()) != 2 {
		t.Errorf("dropped %d, %v; left %d, want 2 and 2", n, err, len(k.all()))
	}
	if err := k.close(none); err != nil {
		t.Fatal(err)
	}
	k = bookOn(t, fs, keptMost)
	if got := k.client(client); len(got.receipts()) != 2 || got.Paid != 50*(tabsKept+2) {
		t.Errorf("after another: %d receipts, paid %d", len(got.receipts()), got.Paid)
	}
	if err := k.close(none); err != nil {
		t.Fatal(err)
	}
}

// TestReceiptsAreBounded: of too many clients the one gives way whose receipts are
// worth least, and no dust pushes out money.
func TestReceiptsAreBounded(t *testing.T) {
	const most = 20
	k := bookOn(t, vfs.NewMem(), most)
	for i := range most {
		if _, err := k.keep(signedBy(t, byte(i), 200, 7, 1, uint64(100+i)), 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		if _, err := k.keep(signedBy(t, byte(50+i), 200, 7, 1<<30, 99), 1, 0); err == nil {
			t.Fatal("dust pushed out money")
		}
	}
	rich := signedBy(t, 100, 200, 7, 1, 1000)
	if _, err := k.keep(rich, 1, 0); err != nil {
		t.Fatal(err)
	}
	if got := k.all(); len(got) != most {
		t.Errorf("%d receipts, at most %d", len(got), most)
	}
	if got := k.client(signedBy(t, 0, 200, 7, 1, 1).Client); len(got.Last) != 0 {
		t.Error("the one worth least is still there")
	}
	if got := k.client(rich.Client).grains(); got != coin.Amount(1000) {
		t.Errorf("the one worth most: %v", got)
	}
	if err := k.close(none); err != nil {
		t.Error(err)
	}
}

// TestABrokenPurseIsAnError: a client that does not know what it spent must not
// spend it again.
func TestABrokenPurseIsAnError(t *testing.T) {
	for _, key := range []string{bookPurse, bookClient + "x"} {
		fs := vfs.NewMem()
		k := bookOn(t, fs, keptMost)
		if err := k.db.Set([]byte(key), []byte{0x81, 0xff}, nil); err != nil {
			t.Fatal(err)
		}
		if err := k.close(none); err != nil {
			t.Fatal(err)
		}
		if k, err := openReceiptsOn(fs, "receipts", keptMost); err == nil {
			t.Errorf("%q: a broken record was taken for none", key)
			_ = k.close(none)
		}
	}
}

func TestPurse(t *testing.T) {
	b := Budget{Period: 60e9, Most: 100, Server: 30}
	x := purse{}
	now := start
	x.turn(b, now)
	x.spend("a", 30)
	x.spend("b", 25)
	for _, c := range []struct {
		p    peer.ID
		want coin.Amount
	}{{"a", 0}, {"b", 5}, {"c", 30}} {
		if got := x.left(b, now, c.p); got != c.want {
			t.Errorf("%s has %v left, want %v", c.p, got, c.want)
		}
	}
	x.spend("c", 30)
	if got := x.left(b, now, "d"); got != 15 {
		t.Errorf("of 100 there are %v left, want 15", got)
	}
	if got := x.left(b, now-3600*sec, "a"); got != 0 {
		t.Errorf("a clock set back gives %v", got)
	}
	next := x.refills(b)
	if next <= now || next > now+60*sec || next%(60*sec) != 0 {
		t.Errorf("refills %d µs from now", next-now)
	}
	if got := x.left(b, next-1, "a"); got != 0 {
		t.Errorf("before the period ends: %v", got)
	}
	if got := x.left(b, next, "a"); got != 30 {
		t.Errorf("in the next period: %v, want 30", got)
	}
	if got, want := fmt.Sprint(x.record().purse()), fmt.Sprint(x); got != want {
		t.Errorf("on disk and back: %s, want %s", got, want)
	}
}
