package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// A hungry prover seals whatever comes and is never done.
type hungry struct {
	Prover
	sealed int
}

func (p *hungry) Begin(context.Context, cid.Cid, uint64) error { return nil }

func (p *hungry) Missing(ctx context.Context, _ cid.Cid) ([]cid.Cid, error) {
	return []cid.Cid{root(p.sealed)}, ctx.Err()
}

func (p *hungry) Seal(context.Context, cid.Cid, cid.Cid, []byte) error {
	p.sealed++
	return nil
}

// A drip is an exchange that gives one block at each interval.
type drip struct {
	exchange.SessionExchange
	every time.Duration
}

func (d drip) NewSession(context.Context) exchange.Fetcher { return d }

func (d drip) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	out := make(chan blocks.Block)
	go func() {
		defer close(out)
		select {
		case <-ctx.Done():
		case <-time.After(d.every):
			b, err := blocks.NewBlockWithCid([]byte{0}, cs[0])
			if err != nil {
				panic(err)
			}
			out <- b
		}
	}()
	return out, nil
}

func newTestKeeper(p Prover, ex exchange.SessionExchange) *keeper {
	return &keeper{
		prover: p, ex: ex, blocks: MemoryBlocks(), c: KeeperConfig{FetchTimeout: Duration(time.Minute)}, log: slog.New(slog.DiscardHandler),
		busy: map[cid.Cid]bool{}, under: map[cid.Cid]*Work{}, stops: map[cid.Cid]context.CancelCauseFunc{}, failed: map[cid.Cid]string{},
	}
}

// A source that sends a block now and then may not keep a place for ever.
func TestAFetchGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &hungry{}
		k := newTestKeeper(p, drip{every: 55 * time.Second})
		began := time.Now()
		err := k.fetch(t.Context(), order{Root: root(1)})
		if took := time.Since(began); !errors.Is(err, errGaveWay) || took != turnsOfSilence*time.Minute || p.sealed != 10 {
			t.Errorf("after %v and %d blocks: %v; want it to give way after %v", took, p.sealed, err, turnsOfSilence*time.Minute)
		}
		if len(k.under)+len(k.stops) > 0 {
			t.Errorf("left behind: %v", k.under)
		}
	})
}

// Silence ends a fetch sooner, and the reason says so.
func TestASilentFetchSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKeeper(&hungry{}, drip{every: time.Hour})
		err := k.fetch(t.Context(), order{Root: root(1)})
		if err == nil || errors.Is(err, errGaveWay) {
			t.Fatalf("got %v", err)
		}
		if want := "fetch: 0 of 1 blocks came: no block for 1m0s, 0 sources named, 0 replicas on chain"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	})
}
