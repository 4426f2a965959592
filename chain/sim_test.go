package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/lode-node/lode/mpow"
)

var (
	simSeed     = flag.Uint64("sim.seed", 0, "simulate the chain of this seed alone")
	simSeeds    = flag.Uint64("sim.seeds", 1, "simulate the chains of so many seeds")
	simFrom     = flag.Uint64("sim.from", 1, "the first of these seeds")
	simBlocks   = flag.Int64("sim.blocks", 150, "blocks of each")
	simAccounts = flag.Int("sim.accounts", 60, "accounts of each, of which half have storage")
)

// A simConfig is all that a simulated chain follows from.
type simConfig struct {
	seed     uint64
	accounts int
	until    func(w *world) bool // true at the height after which the world ends
	quotes   quoteCheck
}

// simulate lets a world run to its end, and then plays all of it to a third App,
// from its empty state. The error tells how to see it again, and what happened
// last (spec §1.6, §9).
func simulate(t *testing.T, c simConfig) (w *world, err error) {
	t.Helper()
	w = newWorld(t, c.seed, c.accounts, c.quotes)
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		f, ok := p.(failure)
		if !ok {
			f.text = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
		}
		err = fmt.Errorf("%s\n\nlast of all:\n  %s\n\nthis run again:\n  go test ./chain -run '^TestSimulation$' -count=1 -sim.seed=%d -sim.accounts=%d -sim.blocks=%d",
			f.text, strings.Join(w.trace[max(0, len(w.trace)-40):], "\n  "), c.seed, c.accounts, len(w.played))
		if !ok && len(w.played) > 0 {
			err = fmt.Errorf("%w\n\nwhat breaks it without the rest:\n  %s", err, strings.Join(w.shrink(), "\n  "))
		}
	}()
	for !c.until(w) {
		w.step()
	}
	three := w.openFresh(false)
	w.replay(three, w.height()+1)
	w.must(w.two.store.compare())
	w.sameMemory(w.one)
	for _, a := range []*App{w.one, w.two, three} {
		w.must(a.Close())
	}
	return w, nil
}

// openFresh opens an App of the world's chain at height 0 that knows every
// protocol.
func (w *world) openFresh(audit bool) *App {
	a, err := OpenApp(AppConfig{Genesis: w.genesis, Audit: audit, Protocol: 1 << 20, quotes: w.quotes})
	w.must(err)
	_, err = a.InitChain(context.Background(), &abci.RequestInitChain{ChainId: w.genesis.ChainID})
	w.must(err)
	return a
}

// step lets everybody say something, and makes a block.
func (w *world) step() {
	for range w.rng.IntN(3 + len(w.ids)/4) {
		name := w.anybody()
		w.offer(name, w.says(name))
	}
	for _, name := range w.roles[validators] {
		if g := w.votes(); g != nil && w.likely(15) {
			w.offer(name, Msg{Gov: g})
		}
	}
	for _, r := range []role{validators, storers} {
		for _, name := range w.roles[r] {
			w.slotWork(name)
		}
	}
	w.answer(w.anybody())
	if len(w.old) > 0 && w.likely(30) {
		w.check(pick(w.rng, w.old...))
	}
	w.block()
}

// book counts what became of a transaction.
func (w *world) book(height int64, raw []byte, res *abci.ExecTxResult) {
	tx, err := DecodeTx(raw)
	w.must(err)
	verb := verbOf(tx.Body.Msg)
	w.note("%d %s %s: %d %.120s", height, w.names[tx.Body.Sender], verb, res.Code, res.Log)
	switch res.Code {
	case CodeOK:
		w.done[verb]++
	default:
		w.failed[verb]++
	}
}

// verbOf names the one thing that a message asks for, as "market.place".
func verbOf(m Msg) string {
	verb := ""
	for at := reflect.ValueOf(m); at.Kind() == reflect.Struct; {
		next := reflect.Value{}
		for i := range at.NumField() {
			if f := at.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() && at.Type().Field(i).IsExported() {
				verb, next = verb+"."+strings.ToLower(at.Type().Field(i).Name), f.Elem()
				break
			}
		}
		if !next.IsValid() || !isTreaty(next.Type()) {
			break
		}
		at = next
	}
	if m.Work != nil && m.Work.Group != nil {
		verb += "." + string(m.Work.Group.Verb)
	}
	return strings.TrimPrefix(verb, ".")
}

// isTreaty reports whether t is a message with verbs of its own.
func isTreaty(t reflect.Type) bool { return t.Name() == "Msg" || t.Name() == "Gov" }

// everyVerb lists what a transaction can ask for, as verbOf names it.
func everyVerb() (all []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Msg]()) {
		name := strings.ToLower(f.Name)
		if !isTreaty(f.Type.Elem()) {
			all = append(all, name)
			continue
		}
		for _, v := range reflect.VisibleFields(f.Type.Elem()) {
			if v.Type != reflect.TypeFor[*mpow.Group]() {
				all = append(all, name+"."+strings.ToLower(v.Name))
			}
		}
	}
	for _, v := range []mpow.GroupVerb{mpow.GroupAllow, mpow.GroupDeny, mpow.GroupJoin, mpow.GroupLeave, mpow.GroupRemove} {
		all = append(all, "work.group."+string(v))
	}
	return all
}

// A coverage counts what was done and refused, by verb, and what events came.
type coverage struct{ done, failed, events map[string]int }

func newCoverage() coverage {
	return coverage{map[string]int{}, map[string]int{}, map[string]int{}}
}

// add counts what d counted too.
func (c coverage) add(d coverage) {
	for _, x := range []struct{ to, from map[string]int }{{c.done, d.done}, {c.failed, d.failed}, {c.events, d.events}} {
		for k, n := range x.from {
			x.to[k] += n
		}
	}
}

// missing names the verbs of which none was done, or none refused, in a block,
// and the events that never came.
func (c coverage) missing() (out []string) {
	for _, verb := range everyVerb() {
		if c.done[verb] == 0 || c.failed[verb] == 0 {
			out = append(out, verb)
		}
	}
	for _, kind := range eventKinds {
		if c.events[kind] == 0 {
			out = append(out, kind)
		}
	}
	return out
}

// TestSimulation lets chains of some seeds run: hundreds of accounts, all kinds of
// messages in all roles, Apps that stop, crash and are restored. By default it is
// one small chain. In the longer ones of `make sim` every verb has to be done and
// refused, and every event to come, in some of them at least; under -test.v they
// tell how far they are.
func TestSimulation(t *testing.T) { // spec §1.1, §1.6, §2, §9
	if *simSeed != 0 {
		w, err := simulate(t, simConfig{seed: *simSeed, accounts: *simAccounts, quotes: playedQuotes, until: func(w *world) bool { return w.height() >= *simBlocks }})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("app hash %x", w.hashes[len(w.hashes)-1])
		return
	}
	var mu sync.Mutex // guards all and blocks
	all, blocks := newCoverage(), int64(0)
	t.Run("seeds", func(t *testing.T) {
		for seed := *simFrom; seed < *simFrom+*simSeeds; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				w, err := simulate(t, simConfig{seed: seed, accounts: *simAccounts, quotes: playedQuotes, until: func(w *world) bool {
					h := w.height()
					if h > 0 && h%100 == 0 && testing.Verbose() {
						fmt.Printf("seed %d: %d of %d blocks, %d transactions done, after %.0f s; process at %d MB\n", seed, h, *simBlocks, total(w.done), time.Since(began).Seconds(), resident())
					}
					return h >= *simBlocks
				}})
				if err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				all.add(w.coverage)
				blocks += w.height()
			})
		}
	})
	t.Logf("%d blocks, done %v, refused %v, events %v", blocks, all.done, all.failed, all.events)
	// What is rare happens in thousands of blocks, not in hundreds.
	if missing := all.missing(); len(missing) > 20 || len(missing) > 0 && blocks >= 3000 {
		t.Errorf("in %d blocks there was no %v", blocks, missing)
	} else if len(missing) > 0 {
		t.Logf("in %d blocks there was no %v", blocks, missing)
	}
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// resident is what this process has of the machine's memory now, in MB.
func resident() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return (m.Sys - m.HeapReleased) >> 20
}

// TestSimulationReplays plays a seed twice: the same happens in the same order.
func TestSimulationReplays(t *testing.T) {
	c := simConfig{seed: 5, accounts: 24, quotes: playedQuotes, until: func(w *world) bool { return w.height() >= 40 }}
	one, err := simulate(t, c)
	if err != nil {
		t.Fatal(err)
	}
	two, err := simulate(t, c)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range one.trace {
		if i >= len(two.trace) || line != two.trace[i] {
			t.Fatalf("seed %d went another way the second time: first %q, then %q", c.seed, line, two.trace[i:min(i+1, len(two.trace))])
		}
	}
	if !slices.EqualFunc(one.hashes, two.hashes, bytes.Equal) {
		t.Errorf("seed %d ended elsewhere the second time", c.seed)
	}
}

// TestSimulationFindsWhatIsBroken runs a chain one of whose rules makes a grain
// out of nothing: it must be found, told with the command that shows it again,
// and shrunk to what breaks it.
func TestSimulationFindsWhatIsBroken(t *testing.T) {
	broken := func(s *state, quote []byte) (mpow.Verdict, error) {
		v, err := playedQuotes(s, quote)
		if err == nil {
			s.fill(potReserve, 1)
		}
		return v, err
	}
	_, err := simulate(t, simConfig{seed: 6, accounts: 40, quotes: broken, until: func(w *world) bool { return w.height() >= 200 }})
	if err == nil {
		t.Fatal("a grain out of nothing went unseen")
	}
	text := err.Error()
	for _, want := range []string{"supply is not conserved (spec §9.1)", "-sim.seed=6 -sim.accounts=40 -sim.blocks=", "last of all:", "work.register"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	_, after, _ := strings.Cut(text, "what breaks it without the rest:\n")
	if lines := strings.Split(after, "\n"); len(lines) > 8 || !strings.Contains(after, "work.register") {
		t.Errorf("shrunk to %d lines, want the registration and little else:\n%s", len(lines), after)
	}
}

// shrink drops from the blocks played what is not needed to have FinalizeBlock
// panic: by whole accounts, then by single transactions, as far as some dozens of
// replays lead. It returns what is left.
func (w *world) shrink() (left []string) {
	type item struct {
		height int64
		tx     []byte
		who    string
	}
	var items []item
	for _, r := range w.played {
		for _, tx := range r.Txs {
			d, err := DecodeTx(tx)
			if err != nil {
				continue
			}
			items = append(items, item{r.Height, tx, w.names[d.Body.Sender]})
		}
	}
	replays := 0
	breaks := func(items []item) (broken bool) {
		replays++
		a := w.openFresh(true)
		defer func() {
			p := recover()
			_, told := p.(failure)
			broken = p != nil && !told
			_ = a.Close()
		}()
		for _, r := range w.played {
			again := *r
			again.Txs = nil
			for _, i := range items {
				if i.height == r.Height {
					again.Txs = append(again.Txs, i.tx)
				}
			}
			w.finalize(a, &again)
			if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
				break
			}
		}
		return false
	}
	if !breaks(items) {
		return []string{"nothing: played again, it holds"}
	}
	// without drops what does not matter, by groups: halves of all first, then ever
	// smaller parts.
	without := func(group func(item) string, most int) {
		for parts := 2; replays < most; parts *= 2 {
			var groups []string
			for _, i := range items {
				if g := group(i); !slices.Contains(groups, g) {
					groups = append(groups, g)
				}
			}
			for chunk := range slices.Chunk(groups, max(1, len(groups)/parts)) {
				kept := slices.DeleteFunc(slices.Clone(items), func(i item) bool { return slices.Contains(chunk, group(i)) })
				if replays < most && breaks(kept) {
					items = kept
				}
			}
			if parts >= len(groups) {
				return
			}
		}
	}
	without(func(i item) string { return i.who }, 40)
	without(func(i item) string { h := sha256.Sum256(i.tx); return string(h[:]) }, 80)
	for _, i := range items {
		d, _ := DecodeTx(i.tx)
		left = append(left, fmt.Sprintf("%d %s %s %x", i.height, i.who, verbOf(d.Body.Msg), i.tx))
	}
	return left
}
