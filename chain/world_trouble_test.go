package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
)

// trouble is what machines do: sometimes, before block r is made, an App stops,
// crashes, or goes on from an old copy of its disk. None of it may show.
func (w *world) trouble(r *abci.RequestFinalizeBlock) {
	what := "executed twice"
	switch w.rng.IntN(60) {
	case 0, 1, 2:
		w.finalize(w.two, r)
	case 3, 4:
		what = "two is stopped and started"
		w.reopen(1, w.disk[1])
	case 5:
		what = "one is stopped and started"
		w.sameMemory(w.one)
		w.reopen(0, w.disk[0])
	case 6, 7:
		what = "two crashes"
		w.reopen(1, w.crashed(w.rng.IntN(101)))
	case 8:
		what = "two crashes between its tree and its view"
		w.finalize(w.two, r)
		_, err := w.two.store.tree.Save()
		w.must(err)
		w.reopen(1, w.crashed(100))
	case 9, 10:
		what = "two's disk is copied"
		w.copied = w.crashed(100)
	case 11:
		if w.copied == nil {
			return
		}
		what = "two is restored"
		w.restore(r.Height)
	default:
		return
	}
	w.note("%d before: %s", r.Height, what)
	if got, want := w.two.View(), w.view(); got.Height() != want.Height() || !bytes.Equal(got.AppHash(), want.AppHash()) {
		w.failf("height %d: %s: it is at %d, %x, want %x", want.Height(), what, got.Height(), got.AppHash(), want.AppHash())
	}
}

// crashed returns two's disk with so many percent of what was not synced.
func (w *world) crashed(percent int) *vfs.MemFS {
	return w.disk[1].CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(w.rng.Uint64(), 1))})
}

// reopen opens App i from a disk, the one that ran closed.
func (w *world) reopen(i int, disk *vfs.MemFS) {
	old := []*App{w.one, w.two}[i]
	w.must(old.Close())
	w.disk[i] = disk
	a := w.open(i)
	if i == 0 {
		w.one = a
	} else {
		w.two = a
	}
}

// restore has two go on from the copy of its disk, and play the blocks since.
func (w *world) restore(next int64) {
	w.reopen(1, w.copied.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}))
	w.replay(w.two, next)
}

// replay plays the blocks after a's height and before next to it; each must give
// the app hash that it gave.
func (w *world) replay(a *App, next int64) {
	for h := a.View().Height() + 1; h < next; h++ {
		if got, want := w.finalize(a, w.played[h-1]).AppHash, w.hashes[h-1]; !bytes.Equal(got, want) {
			w.failf("played again, height %d ends at %x, not at %x", h, got, want)
		}
		_, err := a.Commit(context.Background(), &abci.RequestCommit{})
		w.must(err)
	}
}

// sameMemory compares what an App answers from memory with its store.
func (w *world) sameMemory(a *App) {
	want := loadMemory(a.base())
	var got, stored []string
	for _, x := range []struct {
		m   *memory
		out *[]string
	}{{a.memo, &got}, {want, &stored}} {
		x.m.index.Ascend(func(h held) bool {
			*x.out = append(*x.out, fmt.Sprintf("%+v", h))
			return true
		})
		x.m.nodes.Ascend(func(f fact) bool {
			*x.out = append(*x.out, fmt.Sprintf("%+v", f))
			return true
		})
	}
	for i := range max(len(got), len(stored)) {
		if i >= len(got) || i >= len(stored) || got[i] != stored[i] {
			w.failf("height %d: memory and store differ at record %d of %d and %d: %q, %q", w.height(), i, len(got), len(stored), got[min(i, len(got)):], stored[min(i, len(stored)):])
		}
	}
}

// upgrade installs the next release once the chain wants it: before, neither App
// makes the block.
func (w *world) upgrade() {
	if w.one.Halted() == nil {
		return
	}
	h := w.height() + 1
	for i, a := range []*App{w.one, w.two} {
		if err := a.Halted(); !errors.Is(err, ErrUpgrade) {
			w.failf("height %d: one waits for a newer build, App %d says %v", h, i, err)
		}
		if _, err := a.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{Height: h}); !errors.Is(err, ErrUpgrade) {
			w.failf("height %d: too old, App %d says %v to a block", h, i, err)
		}
	}
	w.protocol++
	w.note("%d before: protocol %d is installed", h, w.protocol)
	for i := range w.disk {
		w.reopen(i, w.disk[i])
	}
}
