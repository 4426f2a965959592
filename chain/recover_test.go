package chain

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

// recovery signs, as the enclave, that it holds files of the names.
func (n *testNode) recovery(names ...string) (mpow.Recover, mpow.Recovery, []mpow.File) {
	n.m.Helper()
	v := n.m.View()
	node, _ := v.Node(n.id)
	seed, _ := v.Seed(v.Slot())
	b := mpow.Recovery{ChainID: v.ChainID(), Account: mpow.Account(n.id), Kind: node.Kind, Generation: node.Generation + 1, Slot: v.Slot(), Seed: seed}
	n.files, n.bytes = mpow.LtHash{}, 0
	var files []mpow.File
	for _, name := range names {
		f := mpow.File{Root: testRoot(n.m, name), Size: testSize}
		n.files.AddFile(f)
		n.bytes += f.Size
		files = append(files, f)
	}
	b.FileBytes, b.FilesRoot = n.bytes, n.files.Digest()
	r, err := b.Sign(n.key)
	if err != nil {
		n.m.Fatal(err)
	}
	return r, b, files
}

func (n *testNode) page(b mpow.Recovery, number uint64, files ...mpow.File) error {
	n.m.Helper()
	p, err := mpow.PageBody{ChainID: b.ChainID, Account: b.Account, Kind: b.Kind, Generation: b.Generation, FilesRoot: b.FilesRoot, Page: number, Files: files}.Sign(n.key)
	if err != nil {
		n.m.Fatal(err)
	}
	_, err = n.m.submit(n.name, Msg{Work: &mpow.Msg{Page: &p}})
	return err
}

// A node whose enclave has drifted pages its files in again: the old replicas are
// dead and what they had not vested is gone, the new ones are listed by the pages
// (spec §3.10, §4.6).
func TestRecoveryOnChain(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) { g.Params.Market.VestSlots = 100 })
	a, b := m.register("n1"), m.register("n2")
	for _, f := range []string{"f", "g"} {
		m.place("user", f, testSize, 600)
	}
	m.nextSlot()
	a.report("f", "g", "own")
	b.report("f", "g")
	for range 3 {
		m.nextSlot()
		a.report()
		b.report()
	}
	m.nextSlot()
	b.report()
	r, rec, files := a.recovery("f", "own", "g")
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Recover: &r}}); err != nil {
		t.Fatal(err)
	}
	n, _ := m.View().Node(a.id)
	if n.Generation != 1 || n.Recovering == nil || n.FileBytes != 0 || proven.must(m.View().source, provenKey).Files != 2*testSize {
		t.Fatalf("node %+v", n)
	}
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Recover: &r}}); err == nil {
		t.Error("the same recovery twice")
	}
	if err := a.page(rec, 0, files[:2]...); err != nil {
		t.Fatal(err)
	}
	if err := a.page(rec, 0, files[:2]...); err == nil || !strings.Contains(err.Error(), "the next is 1") {
		t.Errorf("a page twice: %v", err)
	}
	if err := a.page(rec, 1, files[2:]...); err != nil {
		t.Fatal(err)
	}
	n, _ = m.View().Node(a.id)
	if n.Recovering != nil || n.FileBytes != 3*testSize || n.Last != r.Hash() {
		t.Fatalf("node %+v", n)
	}
	slot := m.View().Slot()
	a.report()
	for _, x := range m.View().Replicas(a.id) {
		if x.Dead || x.Since != slot {
			t.Errorf("replica %+v", x)
		}
	}
	if got, _ := m.file("f").Replica(a.id); got.Vest.Sum() != 0 || got.Generation != 1 {
		t.Errorf("what was not vested came through: %+v", got)
	}
	m.nextSlot()
	if w := m.View().Stake(a.id).Workload; w != 0 {
		t.Errorf("workload %d of a punished node", w)
	}
	a.report()
	b.report()
	m.nextSlot()
	a.report()
	b.report()
	m.nextSlot()
	a.report()
	m.nextSlot()
	if w := m.View().Stake(a.id).Workload; w < 3*testSize {
		t.Errorf("workload %d when the punishment is over", w)
	}
}

// handOver makes the message by which a node goes to another enclave.
func (n *testNode) handOver(key ed25519.PrivateKey) mpow.Handover {
	n.m.Helper()
	v := n.m.View()
	node, _ := v.Node(n.id)
	hash, _ := v.BlockHash(v.Height())
	seed, _ := v.Seed(v.Slot())
	r := mpow.Register{Kind: mpow.KindSimulated, Key: key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(), Height: v.Height(), BlockHash: hash}
	data := mpow.ReportData(v.ChainID(), r.Kind, r.Key, mpow.Account(n.id), r.Height, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(data))
	rep := mpow.Report{ChainID: v.ChainID(), Account: mpow.Account(n.id), Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last, Slot: v.Slot(), Seed: seed,
		FileBytes: n.bytes, FilesRoot: n.files.Digest()}
	signed, err := rep.Sign(key)
	if err != nil {
		n.m.Fatal(err)
	}
	return mpow.Handover{Register: r, Report: signed,
		Sig: ed25519.Sign(n.key, mpow.HandoverBytes(v.ChainID(), node.Account, node.Kind, node.Generation, r.Key, r.Measurement, node.Head()))}
}

// An upgrade costs nobody anything: generation, replicas and pay go on, the old
// key is nobody's, and its word cannot be used again (spec §3.9).
func TestHandoverOnChain(t *testing.T) {
	m := newMarketplace(t)
	a := m.register("n1")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	m.nextSlot()
	seed := sha256.Sum256([]byte("enclave B"))
	key := ed25519.NewKeyFromSeed(seed[:])
	h := a.handOver(key)
	if _, err := m.submit("n2", Msg{Work: &mpow.Msg{Handover: &h}}); err == nil {
		t.Error("somebody else sent it")
	}
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Handover: &h}}); err != nil {
		t.Fatal(err)
	}
	n, _ := m.View().Node(a.id)
	if string(n.Key) != string(h.Register.Key) || n.Generation != 0 || n.PunishedUntil != 0 || n.LastSlot != m.View().Slot() {
		t.Fatalf("node %+v", n)
	}
	old := a.key
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Handover: &h}}); err == nil {
		t.Error("the same handover twice")
	}
	m.nextSlot()
	a.key = old
	rep := func() error {
		v := m.View()
		seed, _ := v.Seed(v.Slot())
		s, err := mpow.Report{ChainID: v.ChainID(), Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: v.Slot(), Seed: seed,
			FileBytes: n.FileBytes, FilesRoot: n.FilesRoot}.Sign(a.key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.submit("n1", Msg{Work: &mpow.Msg{Report: &s}})
		return err
	}
	if err := rep(); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("the old enclave reports on: %v", err)
	}
	m.nextSlot()
	a.key = key
	n, _ = m.View().Node(a.id)
	a.report()
	if got, ok := m.file("f").Replica(a.id); !ok || got.Generation != 0 {
		t.Errorf("replica %+v", got)
	}
	if got := m.View().Stake(a.id).Workload; got != 0 { // the slot that the old one wasted
		t.Errorf("workload %d", got)
	}
	if got := fmt.Sprint(m.View().Supply().Deposits); got != fmt.Sprint(m.View().Params().SimBond) {
		t.Errorf("deposits %v", got)
	}
}

// An expired build hands over, which is how a node goes to the next; a denied one,
// or one on a denied platform, does not, since its word may be anybody's. The new
// one has to be one that may register (spec §3.1, §3.9).
func TestAnExpiredBuildHandsOverAndADeniedDoesNot(t *testing.T) {
	next := mpow.Measurement{MRENCLAVE: mpow.Hash{8, 8}, MinSVN: 1}
	s := hardwareChain(t, func(g *Genesis) {
		g.Measurements[0].Expiry = g.Params.Start(3)
		g.Measurements = append(g.Measurements, next)
		g.Params.EmergencySlots = 2
	}, "alice", "bob", "carol", "validator")
	validator, err := s.As(testKey(t, "validator"))
	if err != nil {
		t.Fatal(err)
	}
	s.Block()
	e := newHardware(t, s, "carol", 2)
	e.register()
	inSlot(s, 1)
	e.report(testFile("a", 1000))
	inSlot(s, 3)
	if _, err := e.send(e.honest(nil, nil)); err == nil || !strings.Contains(err.Error(), "expired at height") {
		t.Fatalf("a report of an expired build: %v", err)
	}
	move := func(build mpow.Hash) error {
		node, b := e.node(), newHardware(t, s, "carol", 2)
		seed := sha256.Sum256([]byte("B"))
		b.key, b.quote.MREnclave = ed25519.NewKeyFromSeed(seed[:]), build
		rep, err := e.honest(nil, nil).Sign(b.key)
		if err != nil {
			t.Fatal(err)
		}
		h := mpow.Handover{Register: b.registration(), Report: rep}
		h.Sig = ed25519.Sign(e.key, mpow.HandoverBytes(s.View().ChainID(), node.Account, node.Kind, 0, h.Register.Key, h.Register.Measurement, node.Head()))
		_, err = e.submit(mpow.Msg{Handover: &h})
		return err
	}
	if err := move(hardwareBuild.MRENCLAVE); err == nil || !strings.Contains(err.Error(), "expired at height") {
		t.Errorf("to the build that has expired: %v", err)
	}
	code, cpu, model := hardwareBuild.MRENCLAVE, e.node().CPU, e.node().FMSPC
	for _, d := range []mpow.Denial{{Measurement: &code}, {CPU: &cpu}, {FMSPC: &model}} {
		submit(t, s, proposal(Propose{Title: "broken", Emergency: &d}))
		submit(t, validator, word(s.View().Proposals()[len(s.View().Proposals())-1].ID, Yes))
		if err := move(next.MRENCLAVE); err == nil || !strings.Contains(err.Error(), d.String()+" of the old enclave is denied") {
			t.Errorf("%v is denied: %v", d, err)
		}
		inSlot(s, s.View().Slot()+3)
	}
	if err := move(next.MRENCLAVE); err != nil {
		t.Fatalf("from the build that has expired: %v", err)
	}
	if n := e.node(); n.Measurement != next.MRENCLAVE || n.Generation != 0 || n.FileBytes != 1000 || n.Seq != 2 {
		t.Errorf("node %+v", n)
	}
}

// A hand-over to a key on a full processor is refused by the chain's own table
// (spec §3.2, §3.9).
func TestHardwareHandsOver(t *testing.T) {
	s := hardwareChain(t, nil, "alice", "bob", "carol")
	s.Block()
	a, b, c := newHardware(t, s, "alice", 1), newHardware(t, s, "bob", 1), newHardware(t, s, "carol", 2)
	for _, e := range []*enclaveTwin{a, b, c} {
		e.register()
	}
	inSlot(s, 1)
	c.report()
	inSlot(s, 2)
	node := c.node()
	move := func(ppid byte) error {
		next := newHardware(t, s, "carol", ppid)
		seed := sha256.Sum256([]byte{ppid})
		next.key = ed25519.NewKeyFromSeed(seed[:])
		rep, err := c.honest(nil, nil).Sign(next.key)
		if err != nil {
			t.Fatal(err)
		}
		h := mpow.Handover{Register: next.registration(), Report: rep}
		h.Sig = ed25519.Sign(c.key, mpow.HandoverBytes(s.View().ChainID(), node.Account, node.Kind, 0, h.Register.Key, h.Register.Measurement, node.Head()))
		_, err = c.submit(mpow.Msg{Handover: &h})
		return err
	}
	if err := move(1); err == nil || !strings.Contains(err.Error(), "processor") {
		t.Errorf("to a full processor: %v", err)
	}
	if err := move(3); err != nil {
		t.Errorf("to another: %v", err)
	}
	if n := c.node(); n.CPU != mpow.CPUHash(s.View().ChainID(), [16]byte{3}) || n.Kind != mpow.KindDCAP {
		t.Errorf("node %+v", n)
	}
}
