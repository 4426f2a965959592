package prover_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lode-node/lode/mpow"
)

// recoverer is what a recovery asks of a prover.
type recoverer interface {
	api
	Recover(ctx context.Context, generation uint64, slot mpow.Slot, seed [32]byte) (mpow.Recover, error)
	Page(ctx context.Context, number uint64) (mpow.Page, error)
}

// recover brings the ledger through a recovery in a slot.
func (l *ledger) recover(p recoverer, slot mpow.Slot) {
	l.t.Helper()
	r, err := p.Recover(l.t.Context(), l.node.Generation+1, slot, slotSeed(slot))
	must(l.t, err)
	now := mpow.Context{ChainID: chainID, Height: l.params.Start(slot) + 1, Slot: slot, Seed: slotSeed(slot)}
	l.node, err = l.params.Recover(l.node, r, now)
	must(l.t, err)
	clear(l.held)
	for l.node.Recovering != nil {
		now.Height++
		page, err := p.Page(l.t.Context(), l.node.Recovering.Pages)
		must(l.t, err)
		n, files, err := l.params.Paged(l.node, page, now)
		must(l.t, err)
		l.node = n
		for _, f := range files {
			l.held[f.Root] = f.Size
		}
	}
}

// After drift of any kind the enclave begins again with what it holds, in pages,
// and reports on top of that word; a restart between forgets nothing (spec §3.10).
func TestAProverRecovers(t *testing.T) {
	dir := t.TempDir()
	c := config(t, dir)
	c.Params.ReportFiles = 2
	p := open(t, c)
	l := newLedger(t, p)
	l.params.ReportFiles = 2
	if _, err := p.Recover(t.Context(), 1, 0, [32]byte{}); !errors.Is(err, mpow.ErrSlot) {
		t.Errorf("a recovery in slot 0: %v", err)
	}
	if _, err := p.Page(t.Context(), 0); !errors.Is(err, mpow.ErrAbsent) {
		t.Errorf("a page of nothing: %v", err)
	}
	var files [][]block
	for i := range 5 {
		files = append(files, tree(t, int64(i), 2, 300))
		store(t, p, files[i])
	}
	l.step(p, 1)
	l.step(p, 2)
	must(t, p.Drop(t.Context(), files[0][0].cid)) // never reported as gone
	l.node.Last[0]++                              // and the chain is somewhere else
	if _, err := p.Report(t.Context(), 3, slotSeed(3), l.node.Head(), nil); !errors.Is(err, mpow.ErrHead) {
		t.Fatalf("a report on an unknown head: %v", err)
	}
	_, err := p.Recover(t.Context(), 7, 3, slotSeed(3)) // the chain never sees this one
	must(t, err)
	l.recover(p, 3)
	if len(l.held) != 4 || l.node.Recovering != nil {
		t.Fatalf("%d files came back, want 4: %+v", len(l.held), l.node)
	}
	if _, ok := l.held[files[0][0].cid]; ok {
		t.Error("a dropped file came back")
	}
	if _, err := p.Page(t.Context(), 2); !errors.Is(err, mpow.ErrAbsent) {
		t.Errorf("a page after the last: %v", err)
	}
	must(t, p.Close())
	p = open(t, c)
	if _, err := p.Page(t.Context(), 1); err != nil {
		t.Errorf("a page after a restart: %v", err)
	}
	more := tree(t, 9, 2, 300)
	store(t, p, more)
	change := l.step(p, 3)
	if len(change.Added) != 1 || change.Added[0].Root != more[0].cid || len(change.Dropped) != 0 {
		t.Errorf("the first report %+v", change)
	}
	must(t, p.Drop(t.Context(), files[1][0].cid))
	if change = l.step(p, 4); len(change.Dropped) != 1 {
		t.Errorf("the second report %+v", change)
	}
	if _, err := p.Page(t.Context(), 0); !errors.Is(err, mpow.ErrAbsent) {
		t.Errorf("a page of a recovery that is over: %v", err)
	}
}

// A recovery never makes a second report for a slot that has one (spec §3.26).
func TestARecoverySignsNoSecondReport(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	l := newLedger(t, p)
	store(t, p, tree(t, 1, 2, 500))
	first, err := p.Report(t.Context(), 4, slotSeed(4), l.node.Head(), nil)
	must(t, err)
	l.recover(p, 4)
	again, err := p.Report(t.Context(), 4, slotSeed(4), l.node.Head(), nil)
	if err != nil || string(again.Body) != string(first.Body) {
		t.Errorf("slot 4 has another report: %v", err)
	}
	if _, err := l.accept(again, 4); err == nil {
		t.Error("the chain takes the report of before")
	}
	l.step(p, 5)
	if _, err := p.Recover(t.Context(), 9, 4, slotSeed(4)); !errors.Is(err, mpow.ErrSlot) {
		t.Errorf("a recovery in a slot that has passed: %v", err)
	}
}
