package chain

import (
	"strings"
	"testing"

	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// TestAnEnclaveCannotClaimMoreThanItSaysItHas lists a file that was never added,
// and drops another one in its place: both stopped every node that audits (spec
// §9.3).
func TestAnEnclaveCannotClaimMoreThanItSaysItHas(t *testing.T) {
	for name, lie := range map[string]func(n *testNode, r *mpow.Report){
		"lists what it never added": func(n *testNode, r *mpow.Report) {
			r.Listed = []mpow.File{{Root: testRoot(t, "f"), Size: testSize}}
		},
		"lists another, larger file than it has": func(n *testNode, r *mpow.Report) {
			n.add(r, mpow.File{Root: testRoot(t, "g"), Size: testSize - 1})
			r.Listed = []mpow.File{{Root: testRoot(t, "f"), Size: testSize}}
		},
	} {
		m := newMarketplace(t)
		m.place("user", "f", testSize, 80)
		n := m.register("n1")
		m.nextSlot()
		r := n.blank()
		lie(n, &r)
		if _, err := n.sign(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if f := m.file("f"); f.State != market.Pending {
			t.Errorf("%s: the file is %v, want that nobody proved it", name, f.State)
		}
	}
	m := newMarketplace(t)
	m.place("user", "f", testSize, 80)
	n := m.register("n1")
	m.nextSlot()
	n.report("f")
	m.nextSlot()
	r := n.blank()
	r.Dropped = []mpow.File{{Root: testRoot(t, "never added"), Size: testSize}}
	n.files.SubFile(r.Dropped[0])
	r.FileBytes, r.FilesRoot = 0, n.files.Digest()
	if _, err := n.sign(r); err == nil || !strings.Contains(err.Error(), "§9.3") {
		t.Errorf("a drop of a file that was never added: %v, want a refusal", err)
	}
}

// blank is a report for the slot of the last block that changes nothing.
func (n *testNode) blank() mpow.Report {
	n.m.Helper()
	v := n.m.View()
	node, ok := v.Node(n.id)
	if !ok {
		n.m.Fatalf("node %s is not registered", n.name)
	}
	seed, _ := v.Seed(v.Slot())
	return mpow.Report{ChainID: v.ChainID(), Account: mpow.Account(n.id), Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last,
		Slot: v.Slot(), Seed: seed, FileBytes: n.bytes, FilesRoot: n.files.Digest()}
}

// add puts a file into r and into the sums of n.
func (n *testNode) add(r *mpow.Report, f mpow.File) {
	n.files.AddFile(f)
	n.bytes += f.Size
	r.Added, r.FileBytes, r.FilesRoot = append(r.Added, f), n.bytes, n.files.Digest()
}

// sign signs r with the enclave's key and sends it.
func (n *testNode) sign(r mpow.Report) (TxResult, error) {
	n.m.Helper()
	signed, err := r.Sign(n.key)
	if err != nil {
		n.m.Fatal(err)
	}
	return n.m.submit(n.name, Msg{Work: &mpow.Msg{Report: &signed}})
}
