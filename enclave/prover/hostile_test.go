package prover_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// The host is the enemy (EN-22). These tests are hosts that lie, break off and
// flood; the prover keeps what it holds, and signs nothing that counts.

// A host that brings wrong bytes, or the same block again and again, adds nothing
// to what is sealed.
func TestHostBringsWrongAndRepeatedBlocks(t *testing.T) {
	dir := t.TempDir()
	p := overSocket(t, open(t, config(t, dir)))
	ctx, blocks := t.Context(), tree(t, 1, 3, 2000)
	root := blocks[0].cid
	must(t, p.Begin(ctx, root, 1<<20))
	must(t, p.Seal(ctx, root, root, blocks[0].data))
	sealed := func() int64 {
		info, err := os.Stat(only(t, filepath.Join(dir, "replicas", "*", "data")))
		must(t, err)
		return info.Size()
	}
	before := sealed()
	for what, err := range map[string]error{
		"another block's bytes": p.Seal(ctx, root, blocks[1].cid, blocks[2].data),
		"one byte fewer":        p.Seal(ctx, root, blocks[1].cid, blocks[1].data[:1999]),
		"one byte more":         p.Seal(ctx, root, blocks[1].cid, append(bytes.Clone(blocks[1].data), 0)),
		"no bytes":              p.Seal(ctx, root, blocks[1].cid, nil),
		"of another file":       p.Seal(ctx, blocks[1].cid, blocks[1].cid, blocks[1].data),
		"nothing links to it":   p.Seal(ctx, root, random(t, 77, 9).cid, random(t, 77, 9).data),
	} {
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if n := sealed(); n != before {
		t.Errorf("wrong blocks made %d bytes of %d", n, before)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5 {
				if err := p.Seal(ctx, root, blocks[1].cid, blocks[1].data); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := sealed(); n != before+9+34+2000+16 {
		t.Errorf("a block brought forty times made %d bytes of %d", n, before)
	}
	must(t, p.Seal(ctx, root, blocks[2].cid, blocks[2].data))
	must(t, p.Seal(ctx, root, blocks[3].cid, blocks[3].data))
	if n, err := p.Commit(ctx, root); err != nil || n != size(blocks) {
		t.Fatalf("committed %d, %v", n, err)
	}
}

// piped serves p over pipes in memory, so that time can be virtual, and returns
// how to dial it.
func piped(t *testing.T, p *prover.Prover) func() net.Conn {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		ours, theirs := net.Pipe()
		l.conns <- theirs
		return ours
	}
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// ask sends a call of n bytes' length of which only body comes.
func ask(c net.Conn, call string, n int, body []byte) error {
	_, err := fmt.Fprintf(c, "POST /v1/%s HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", call, n, body)
	return err
}

// status reads an answer and returns its status.
func status(c net.Conn) (int, error) {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// Hosts that hang up in the middle of a call leave nothing behind, however many.
func TestHostHangsUp(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	blocks := tree(t, 1, 2, 2000)
	root := blocks[0].cid
	must(t, p.Begin(t.Context(), root, 1<<20))
	synctest.Test(t, func(t *testing.T) {
		dial := piped(t, p)
		for n := range 200 {
			c := dial()
			switch n % 4 {
			case 0: // at once
			case 1: // within the head
				io.WriteString(c, "POST /v1/se")
			case 2: // within the block
				if err := ask(c, "seal?root="+root.String()+"&block="+root.String(), len(blocks[0].data), blocks[0].data[:10]); err != nil {
					t.Fatal(err)
				}
			case 3: // before the answer is taken
				if err := ask(c, "info", 1, []byte{0xa0}); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
		c := dial()
		defer c.Close()
		if err := ask(c, "info", 1, []byte{0xa0}); err != nil {
			t.Fatal(err)
		}
		if code, err := status(c); err != nil || code != 200 {
			t.Fatalf("afterwards: %d, %v", code, err)
		}
	})
	if missing, err := p.Missing(t.Context(), root); err != nil || len(missing) != 1 {
		t.Fatalf("missing %v, %v; want the root alone, of which never all came", missing, err)
	}
}

// Callers that stop in the middle of a call, or do not take their answers, are hung
// up on in time, and those who wait get their turn.
func TestHostStalls(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	for name, stall := range map[string]func(c net.Conn) error{
		"body never ends":     func(c net.Conn) error { return ask(c, "begin", 100, []byte("x")) },
		"answer is not taken": func(c net.Conn) error { return ask(c, "info", 1, []byte{0xa0}) },
		"head never ends": func(c net.Conn) error {
			_, err := io.WriteString(c, "POST /v1/info HTTP/1.1\r\nHost:")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := piped(t, p)
				for range 40 { // more than are worked on at once
					c := dial()
					defer c.Close()
					if err := stall(c); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				c := dial()
				defer c.Close()
				if err := ask(c, "info", 1, []byte{0xa0}); err != nil {
					t.Fatal(err)
				}
				code, err := status(c)
				if took := time.Since(began); err != nil || code != 200 || took > 3*time.Minute {
					t.Fatalf("%d, %v after %v", code, err, took)
				}
			})
		})
	}
}

// No frame is larger than its bound, and none is read beyond it.
func TestHostSendsTooMuch(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	synctest.Test(t, func(t *testing.T) {
		dial := piped(t, p)
		b := random(t, 1, 10)
		seal := "seal?root=" + b.cid.String() + "&block=" + b.cid.String()
		for _, row := range []struct {
			call   string
			length int
			want   int
		}{
			{"info", 1 << 13, 413}, {"attest", 1 << 30, 413}, {"report", 2 << 20, 413}, {seal, mpow.MaxBlock + 1, 413}, {seal, 1 << 40, 413},
			{"seal?root=x&block=y", 10, 400}, {"nonsense", 10, 404},
		} {
			c := dial()
			go func() {
				_ = ask(c, row.call, row.length, nil)
				_, _ = io.Copy(c, io.LimitReader(zero{}, int64(min(row.length, 4<<20)))) // until it hangs up
			}()
			if code, err := status(c); err != nil || code != row.want {
				t.Errorf("%s of %d bytes: %d, %v; want %d", row.call, row.length, code, err, row.want)
			}
			c.Close()
		}
		c := dial()
		defer c.Close()
		go func() {
			_, _ = fmt.Fprintf(c, "POST /v1/%s HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", seal)
		}()
		if code, err := status(c); err != nil || code != 413 {
			t.Errorf("a block of no stated length: %d, %v", code, err)
		}
	})
}

type zero struct{}

func (zero) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// A host that lies about the chain gets words that the chain refuses, and then the
// prover stands where the chain is not: it signs nothing more until it begins a
// new generation (spec §3.5, §3.10).
func TestHostLiesAboutTheChain(t *testing.T) {
	for _, row := range []struct {
		name string
		lie  func(l *ledger, p api) (mpow.Signed, error)
		then error // what the honest call of slot 3 answers after it; nil: it counts
	}{
		{"another seed", func(l *ledger, p api) (mpow.Signed, error) {
			return p.Report(l.t.Context(), 2, [32]byte{99}, l.node.Head(), nil)
		}, nil}, // as if that report were lost
		{"a later slot", func(l *ledger, p api) (mpow.Signed, error) {
			return p.Report(l.t.Context(), 900, slotSeed(2), l.node.Head(), nil)
		}, nil}, // it spent slot 900, and no other
		{"that a lost report was accepted", func(l *ledger, p api) (mpow.Signed, error) {
			lost, err := p.Report(l.t.Context(), 2, slotSeed(2), l.node.Head(), nil)
			must(l.t, err)
			head := mpow.Head{Seq: l.node.Head().Seq + 1, Last: lost.Hash(), HasReport: true}
			return p.Report(l.t.Context(), 3, slotSeed(3), head, nil)
		}, mpow.ErrSlot}, // slot 3 is signed, on a head that is not there
		{"a head that never was", func(l *ledger, p api) (mpow.Signed, error) {
			return p.Report(l.t.Context(), 2, slotSeed(2), mpow.Head{Seq: 8, Last: mpow.Hash{8}, HasReport: true}, nil)
		}, nil}, // nothing was signed
	} {
		t.Run(row.name, func(t *testing.T) {
			p := open(t, config(t, t.TempDir()))
			l := newLedger(t, p)
			store(t, p, tree(t, 1, 2, 500))
			l.step(p, 1)
			if s, err := row.lie(l, p); err == nil {
				for slot := mpow.Slot(2); slot < 4; slot++ {
					if _, err := l.accept(s, slot); err == nil {
						t.Fatalf("the chain takes a report made of a lie, in slot %d", slot)
					}
				}
			} else if !errors.Is(err, mpow.ErrHead) {
				t.Fatal(err)
			}
			s, err := p.Report(t.Context(), 3, slotSeed(3), l.node.Head(), nil)
			if row.then != nil {
				// The same bytes as the lie's, or none.
				if err == nil {
					if _, err = l.accept(s, 3); err == nil {
						t.Fatal("two reports for one slot")
					}
				} else if !errors.Is(err, row.then) {
					t.Fatalf("afterwards: %v, want %v", err, row.then)
				}
				return
			}
			must(t, err)
			_, err = l.accept(s, 3)
			must(t, err)
		})
	}
}

// A host that has slots to come signed for spends them, and no other: what it names
// too early is missed when its time comes, and nothing else. No slot ever has two
// reports. Who lies more often than the enclave keeps slots apart has to wait for
// the slots that it named, or begin anew (spec §3.26).
func TestFarSlotsSpendThemselvesAlone(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	store(t, p, tree(t, 1, 2, 500))
	signed := map[mpow.Slot]mpow.Signed{}
	lie := func(slot mpow.Slot) error {
		s, err := p.Report(t.Context(), slot, [32]byte{99}, l.node.Head(), nil)
		if err == nil && signed[slot].Body != nil && !bytes.Equal(s.Body, signed[slot].Body) {
			t.Fatalf("slot %d has two reports", slot)
		}
		if err == nil {
			signed[slot] = s
		}
		return err
	}
	now := mpow.Slot(1)
	honest := func() {
		t.Helper()
		s, err := p.Report(t.Context(), now, slotSeed(now), l.node.Head(), nil)
		must(t, err)
		if signed[now].Body != nil {
			t.Fatalf("slot %d has two reports", now)
		}
		if _, err := l.accept(s, now); err != nil {
			t.Fatal(err)
		}
		signed[now] = s
		now++
	}
	for n := range 60 {
		honest()
		must(t, lie(math.MaxInt64-mpow.Slot(n)))
		must(t, lie(math.MaxInt64-mpow.Slot(n))) // the same bytes
	}
	must(t, p.Close())
	p = open(t, config(t, dir))
	honest()
	for slot, old := range signed {
		s, err := p.Report(t.Context(), slot, [32]byte{98}, l.node.Head(), nil)
		if err == nil && !bytes.Equal(s.Body, old.Body) || err != nil && !errors.Is(err, mpow.ErrSlot) {
			t.Fatalf("slot %d asked again: %v", slot, err)
		}
	}
	l.recover(p, now)
	now++
	honest()
	far := mpow.Slot(now + 20)
	must(t, lie(far))
	for now < far {
		honest()
	}
	if err := lie(far); !errors.Is(err, mpow.ErrSlot) {
		t.Fatalf("slot %d, named too early: %v", far, err)
	}
	now++
	honest()
	for n := range mpow.Slot(100) {
		must(t, lie(1<<40+n))
	}
	if _, err := p.Report(t.Context(), now, slotSeed(now), l.node.Head(), nil); !errors.Is(err, mpow.ErrSlot) {
		t.Fatalf("after a hundred lies in a row: %v", err)
	}
}

// Evidence made for another block, chain or account registers nobody (spec §3.2).
func TestHostLiesAboutTheBlock(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	pm := params(t)
	r, err := p.Attest(t.Context(), chainID, account, 5, [32]byte{5})
	must(t, err)
	good := mpow.Context{ChainID: chainID, Height: 6, Hash: [32]byte{5}}
	if _, err := pm.Admit(nil, account, r, good); err != nil {
		t.Fatal(err)
	}
	for what, try := range map[string]func() error{
		"another block's hash": func() error {
			_, err := pm.Admit(nil, account, r, mpow.Context{ChainID: chainID, Height: 6, Hash: [32]byte{6}})
			return err
		},
		"a height long past": func() error {
			_, err := pm.Admit(nil, account, r, mpow.Context{ChainID: chainID, Height: 6 + 2*pm.SlotBlocks, Hash: [32]byte{5}})
			return err
		},
		"a height to come": func() error {
			_, err := pm.Admit(nil, account, r, mpow.Context{ChainID: chainID, Height: 4, Hash: [32]byte{5}})
			return err
		},
		"another chain": func() error {
			_, err := pm.Admit(nil, account, r, mpow.Context{ChainID: "dev-b", Height: 6, Hash: [32]byte{5}})
			return err
		},
		"another account": func() error {
			_, err := pm.Admit(nil, account+"x", r, good)
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: registered", what)
		}
	}
}

// The calls in any order, on any block, never make it hold what it was not given.
func FuzzOrderOfCalls(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04"))
	f.Add([]byte("begin, seal, seal, commit, drop"))
	blocks := tree(f, 1, 2, 100)
	f.Fuzz(func(t *testing.T, calls []byte) {
		if len(calls) > 24 {
			return
		}
		dir := t.TempDir()
		p, err := prover.New(config(t, dir))
		must(t, err)
		defer func() { p.Close() }()
		ctx, root, slot := t.Context(), blocks[0].cid, mpow.Slot(0)
		for _, c := range calls {
			b := blocks[int(c>>4)%len(blocks)]
			switch c % 11 {
			case 0:
				_ = p.Begin(ctx, b.cid, uint64(c)*10)
			case 1, 2, 3:
				_ = p.Seal(ctx, root, b.cid, b.data)
			case 4:
				_, _ = p.Commit(ctx, b.cid)
			case 5:
				_ = p.Drop(ctx, b.cid)
			case 6:
				_, _ = p.Missing(ctx, b.cid)
			case 7:
				_, _ = p.Attest(ctx, chainID, account, int64(c), [32]byte{c})
			case 8:
				slot += mpow.Slot(c >> 4)
				_, _ = p.Report(ctx, slot, [32]byte{c}, mpow.Head{}, nil)
			case 9:
				_ = p.Begin(ctx, root, 1<<20)
			case 10:
				must(t, p.Close())
				p, err = prover.New(config(t, dir))
				must(t, err)
			}
			if data, err := p.Open(ctx, b.cid); err == nil && !bytes.Equal(data, b.data) {
				t.Fatalf("block %v reads as %d other bytes", b.cid, len(data))
			} else if err != nil && !errors.Is(err, mpow.ErrAbsent) {
				t.Fatal(err)
			}
		}
	})
}
