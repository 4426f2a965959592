package chain

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

// An enclaveTwin signs what an enclave would, and what it never would.
type enclaveTwin struct {
	t     testing.TB
	chain *Solo // signs as the node
	id    peer.ID
	key   ed25519.PrivateKey
	quote *mpow.Verdict // what its hardware says; nil: it is simulated
}

// newTwin returns the enclave of the account of a name, not registered yet.
func newTwin(t testing.TB, s *Solo, name string) *enclaveTwin {
	t.Helper()
	c, err := s.As(testKey(t, name))
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte(name))
	return &enclaveTwin{t: t, chain: c, id: testID(t, name), key: ed25519.NewKeyFromSeed(seed[:])}
}

func (e *enclaveTwin) registration() mpow.Register {
	v := e.chain.View()
	hash, ok := v.BlockHash(v.Height())
	if !ok {
		e.t.Fatal("no block to register at")
	}
	r := mpow.Register{
		Kind: mpow.KindSimulated, Key: e.key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(),
		Height: v.Height(), BlockHash: hash,
	}
	if e.quote != nil {
		r.Kind, r.Measurement = mpow.KindDCAP, e.quote.MREnclave
		q := *e.quote
		q.ReportData = mpow.ReportData(v.ChainID(), r.Kind, r.Key, mpow.Account(e.id), r.Height, hash, r.StateRoot)
		r.Evidence = encode(q)
		return r
	}
	data := mpow.ReportData(v.ChainID(), r.Kind, r.Key, mpow.Account(e.id), r.Height, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(e.key, mpow.SimulatedEvidence(data))
	return r
}

func (e *enclaveTwin) submit(m mpow.Msg) (TxResult, error) {
	return e.chain.Submit(context.Background(), Msg{Work: &m})
}

func (e *enclaveTwin) register() {
	e.t.Helper()
	r := e.registration()
	if _, err := e.submit(mpow.Msg{Register: &r}); err != nil {
		e.t.Fatal(err)
	}
}

func (e *enclaveTwin) node() mpow.Node {
	n, ok := e.chain.View().Node(e.id)
	if !ok {
		e.t.Fatalf("%v is not registered", e.id)
	}
	return n
}

// honest returns the report of the slot of the next block, and its sums.
func (e *enclaveTwin) honest(added, dropped []mpow.File) mpow.Report {
	v, n := e.chain.View(), e.node()
	slot := v.Params().SlotOf(v.Height() + 1)
	seed, _ := v.Seed(slot)
	r := mpow.Report{
		ChainID: v.ChainID(), Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: slot, Seed: seed,
		SRDBytes: 3 * v.Params().Mpow.SRDUnit, FileBytes: n.FileBytes, Added: added, Dropped: dropped,
	}
	sum := n.Files
	for _, f := range added {
		r.FileBytes += f.Size
		sum.AddFile(f)
	}
	for _, f := range dropped {
		r.FileBytes -= f.Size
		sum.SubFile(f)
	}
	r.FilesRoot = sum.Digest()
	return r
}

func (e *enclaveTwin) send(r mpow.Report) (TxResult, error) {
	s, err := r.Sign(e.key)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.submit(mpow.Msg{Report: &s})
}

// report sends the honest report, which must be accepted.
func (e *enclaveTwin) report(added ...mpow.File) {
	e.t.Helper()
	if _, err := e.send(e.honest(added, nil)); err != nil {
		e.t.Fatal(err)
	}
}

// inSlot makes blocks until the first of a slot is made.
func inSlot(s *Solo, slot mpow.Slot) {
	for s.View().Height() < s.View().Params().Start(slot) {
		s.Block()
	}
}

func testFile(name string, size uint64) mpow.File {
	sum, err := mh.Sum([]byte(name), mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return mpow.File{Root: cid.NewCidV1(cid.Raw, sum), Size: size}
}

func TestRegisterLocksABondUntilItLapses(t *testing.T) { // spec §2.2, §3.2
	g := testGenesis(t)
	g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 2, 1
	s := testSolo(t, SoloConfig{Genesis: g, Audit: true, App: openTestApp(t, g)})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	bond := s.View().Params().SimBond
	if got := s.View().Supply(); bond == 0 || got.Deposits != bond || !got.Conserved {
		t.Fatalf("deposits %v after one registration, want %v", got.Deposits, bond)
	}
	n := e.node()
	if n.AttestedUntil != 2 || n.Kind != mpow.KindSimulated || n.Owner() != mpow.Account(e.id) {
		t.Fatalf("node %+v", n)
	}
	inSlot(s, 2)
	e.register() // a renewal locks nothing more
	if got := s.View().Supply().Deposits; got != bond {
		t.Fatalf("deposits %v after a renewal, want %v", got, bond)
	}
	inSlot(s, 5)
	e.report()
	if got := s.View().Supply().Deposits; got != bond {
		t.Fatalf("deposits %v in slot 5 after a renewal until 4 and a slot of grace, want %v", got, bond)
	}
	inSlot(s, 6)
	if got := s.View().Supply().Deposits; got != 0 {
		t.Fatalf("deposits %v after it lapsed in slot 6, want none", got)
	}
	if _, err := e.send(e.honest(nil, nil)); err == nil || !strings.Contains(err.Error(), "lapsed") {
		t.Fatalf("a report after the lapse: %v", err)
	}
	e.register()
	inSlot(s, 7)
	e.report()
	if got := s.View().Supply().Deposits; got != bond {
		t.Fatalf("deposits %v after it registered again, want %v", got, bond)
	}
}

func openTestApp(t *testing.T, g Genesis) *App {
	t.Helper()
	a, err := OpenApp(AppConfig{Genesis: g, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestRegisterRefuses(t *testing.T) { // spec §3.2, §3.3
	s := testSolo(t, SoloConfig{})
	bob, carol := newTwin(t, s, "bob"), newTwin(t, s, "alice")
	s.Block()
	r := bob.registration()
	if _, err := carol.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "bind") {
		t.Errorf("another account's evidence: %v", err)
	}
	for late, want := range []string{"", "want one of the last 4"} { // it waits for SlotBlocks blocks, and one more
		r := bob.registration()
		for range int(s.View().Params().Mpow.SlotBlocks) - 1 + late {
			s.Block()
		}
		if _, err := bob.submit(mpow.Msg{Register: &r}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("at height %d a registration that names %d: %v, want %q", s.View().Height(), r.Height, err, want)
		}
	}
	bob.register()
	carol.key = bob.key
	r = carol.registration()
	if _, err := carol.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "another account") {
		t.Errorf("another account's key: %v", err)
	}
	var e *Error
	for _, m := range []mpow.Msg{{Recover: &mpow.Recover{}}, {Page: &mpow.Page{}}, {Handover: &mpow.Handover{}}} {
		if _, err := carol.submit(m); !errors.As(err, &e) || e.Code != CodeAbsent {
			t.Errorf("%+v of no node: %v", m, err)
		}
	}
	if _, err := carol.submit(mpow.Msg{}); !errors.As(err, &e) || e.Code != CodeEncoding {
		t.Errorf("no verb: %v", err)
	}
}

func TestReportsMissesAndPunishment(t *testing.T) { // spec §3.5, §3.7
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	free := s.View().Account(e.id).Free
	e.report(testFile("a", 1000))
	if got := s.View().Account(e.id).Free; got != free {
		t.Errorf("a slot's first report cost %v (spec §2.2)", free-got)
	}
	n := e.node()
	if n.Seq != 1 || n.LastSlot != 1 || n.FileBytes != 1000 || n.Workload() != 1000+3*s.View().Params().Mpow.SRDUnit {
		t.Fatalf("node %+v after its first report", n)
	}
	inSlot(s, 2)
	e.report(testFile("b", 500))
	inSlot(s, 4) // 3 is missed: punished until 3 + PunishSlots
	e.report()
	n = e.node()
	if n.Misses != 1 || n.PunishedUntil != 3+mpow.Slot(s.View().Params().Mpow.PunishSlots) || n.FileBytes != 1500 {
		t.Fatalf("after a miss: %+v", n)
	}
}

// What is above FreeReport bytes of a slot's first report pays by the byte, and
// nothing else of it does (spec §2.2).
func TestALongReportPaysForWhatIsAbove(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	var files []mpow.File
	for i := range 250 {
		files = append(files, testFile(fmt.Sprint("f", i), 1))
	}
	signed, err := e.honest(files, nil).Sign(e.key)
	if err != nil {
		t.Fatal(err)
	}
	cheap, err := Sign(testKey(t, "bob"), Body{ChainID: s.View().ChainID(), Sender: e.id, Fee: 1, Msg: Msg{Work: &mpow.Msg{Report: &signed}}})
	if err != nil {
		t.Fatal(err)
	}
	var e1 *Error
	if _, err := s.SubmitTx(t.Context(), cheap); !errors.As(err, &e1) || e1.Code != CodeFee {
		t.Errorf("a long report that allows a grain: %v", err)
	}
	tx, err := Sign(testKey(t, "bob"), Body{ChainID: s.View().ChainID(), Sender: e.id, Fee: coin.LODE, Msg: Msg{Work: &mpow.Msg{Report: &signed}}})
	if err != nil {
		t.Fatal(err)
	}
	p, free := s.View().Params().Fees, s.View().Account(e.id).Free
	want := p.Byte * coin.Amount(uint64(len(tx))-p.FreeReport)
	res, err := s.SubmitTx(t.Context(), tx)
	if err != nil || uint64(len(tx)) <= p.FreeReport || res.Fee != want || s.View().Account(e.id).Free != free-want {
		t.Errorf("%d bytes paid %v, want %v; %v", len(tx), res.Fee, want, err)
	}
}

// During a slot an owner has what the slot before brought it, and a miss costs
// the owner that and the punishment, nobody else (spec §3.7).
func TestWorkloadOfAnOwner(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	want := []uint64{0, 0, 1, 1, 0, 0, 0, 1, 1} // in slots 0 to 8: 3 is missed, so 4 and 5 count for nothing
	unit := 3*s.View().Params().Mpow.SRDUnit + 1000
	for slot := mpow.Slot(1); slot < mpow.Slot(len(want)); slot++ {
		inSlot(s, slot)
		if got := s.View().Stake(e.id).Workload; got != want[slot]*unit {
			t.Errorf("slot %d: workload %d, want %d", slot, got, want[slot]*unit)
		}
		switch slot {
		case 1:
			e.report(testFile("a", 1000))
		case 3:
		default:
			e.report()
		}
	}
}

// The liars of the project's plan: each is refused with the reason, and nothing
// changes (spec §3.5, §3.6).
func TestReportLiars(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	e.report(testFile("a", 1000))
	slot := mpow.Slot(1)
	for _, row := range []struct {
		name string
		lie  func(r *mpow.Report, e *enclaveTwin)
		want string
	}{
		{"forged", func(r *mpow.Report, e *enclaveTwin) { e.key = newTwin(t, s, "alice").key }, "signature"},
		{"wrong size", func(r *mpow.Report, e *enclaveTwin) { r.Added[0].Size++ }, "file bytes"},
		{"wrong size and sum", func(r *mpow.Report, e *enclaveTwin) { r.Added[0].Size++; r.FileBytes++ }, "files root"},
		{"wrong seed", func(r *mpow.Report, e *enclaveTwin) { r.Seed[0] ^= 1 }, "seed"},
		{"stale slot", func(r *mpow.Report, e *enclaveTwin) { r.Slot-- }, "slot"},
		{"rolled back", func(r *mpow.Report, e *enclaveTwin) { r.Seq, r.Prev = 1, mpow.Hash{} }, "sequence 1, want 2"},
		{"another chain", func(r *mpow.Report, e *enclaveTwin) { r.ChainID = "dev-other" }, "chain"},
	} {
		slot++
		inSlot(s, slot)
		before, liar := e.node(), *e
		r := e.honest([]mpow.File{testFile(row.name, 7)}, nil)
		row.lie(&r, &liar)
		if _, err := liar.send(r); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
		if after := e.node(); after.Seq != before.Seq || after.FileBytes != before.FileBytes || after.FilesRoot != before.FilesRoot {
			t.Errorf("%s changed the node", row.name)
		}
	}
}

// A twin prover that races builds on a report that the chain never took
// (spec §3.5, §3.25).
func TestTwinProverIsRefused(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	mine, theirs := e.honest([]mpow.File{testFile("a", 1)}, nil), e.honest([]mpow.File{testFile("b", 2)}, nil)
	if _, err := e.send(mine); err != nil {
		t.Fatal(err)
	}
	if _, err := e.send(theirs); err == nil || !strings.Contains(err.Error(), "free one") {
		t.Errorf("a second free report of a slot: %v", err)
	}
	signed, err := theirs.Sign(e.key)
	if err != nil {
		t.Fatal(err)
	}
	inSlot(s, 2)
	next := e.honest(nil, nil)
	next.Prev = signed.Hash()
	if _, err := e.send(next); err == nil || !strings.Contains(err.Error(), "builds on") {
		t.Errorf("a report on top of one that was never accepted: %v", err)
	}
	if n := e.node(); n.FileBytes != 1 || n.Seq != 1 {
		t.Errorf("node %+v", n)
	}
}

func TestAPaidSecondReportIsANoOp(t *testing.T) { // spec §2.2, §3.5
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	e.report(testFile("a", 1))
	before := e.node()
	signed, err := e.honest([]mpow.File{testFile("b", 2)}, nil).Sign(e.key)
	if err != nil {
		t.Fatal(err)
	}
	b := Body{ChainID: s.View().ChainID(), Sender: e.id, Nonce: s.View().Account(e.id).Nonce + 1, Msg: Msg{Work: &mpow.Msg{Report: &signed}}}
	b.Fee = s.View().Params().FeeBound(b)
	tx, err := Sign(testKey(t, "bob"), b)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.SubmitTx(context.Background(), tx)
	if err != nil || res.Fee == 0 {
		t.Fatalf("paid %v, %v", res.Fee, err)
	}
	if after := e.node(); after.Seq != before.Seq || after.FileBytes != before.FileBytes {
		t.Errorf("it changed %+v to %+v", before, after)
	}
	block, ok := s.View().Block(res.Height)
	if !ok || slices.ContainsFunc(block.Events, func(e Event) bool { return e.Kind == "reported" }) {
		t.Errorf("events %+v, want none of a report", block.Events)
	}
}

func TestANewEnclaveBeginsANewGeneration(t *testing.T) { // spec §3.10
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	e.report(testFile("a", 1000))
	old := e.key
	e.key = newTwin(t, s, "another").key
	e.register()
	n := e.node()
	if n.Generation != 1 || n.FileBytes != 0 || n.Seq != 0 || n.PunishedUntil != 1+mpow.Slot(s.View().Params().Mpow.PunishSlots) {
		t.Fatalf("node %+v", n)
	}
	if got := s.View().Supply(); got.Deposits != s.View().Params().SimBond {
		t.Errorf("deposits %v", got.Deposits)
	}
	inSlot(s, 2)
	e.report(testFile("a", 1000))
	e.key = old // nobody's key any more: the same account may come back to it
	e.register()
	if n := e.node(); n.Generation != 2 || len(s.View().Replicas(e.id)) != 0 {
		t.Errorf("node %+v", n)
	}
	count := 0
	for range s.View().Nodes("") {
		count++
	}
	if count != 1 {
		t.Errorf("%d nodes, want 1", count)
	}
}
