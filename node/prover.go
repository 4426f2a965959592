package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/mpow"
)

// Hander is what a node asks of two provers when one hands over to the other
// (spec §3.9); see package enclave for what each call does.
type Hander interface {
	Prover
	Target(ctx context.Context) ([]byte, error)
	Offer(ctx context.Context, target []byte) (mpow.Offer, error)
	Give(ctx context.Context, slot mpow.Slot, head mpow.Head, release mpow.Release, offer mpow.Offer) (mpow.Gift, error)
	GivePage(ctx context.Context, number uint64) ([]byte, error)
	Take(ctx context.Context, release mpow.Release, gift mpow.Gift) error
	TakePage(ctx context.Context, number uint64, page []byte) error
	Word(ctx context.Context, key []byte, measurement mpow.Hash, generation uint64, head mpow.Head) ([]byte, error)
	Abandon(ctx context.Context) error
}

// A seat holds the prover in use, which a hand-over changes for another while the
// node runs.
type seat struct{ at atomic.Pointer[Prover] }

func newSeat(p Prover) *seat {
	s := &seat{}
	s.at.Store(&p)
	return s
}

func (s *seat) now() Prover  { return *s.at.Load() }
func (s *seat) set(p Prover) { s.at.Store(&p) }

var _ Prover = (*seat)(nil)

// Info implements Prover, as do all of these.
func (s *seat) Info(ctx context.Context) (mpow.ProverInfo, error) { return s.now().Info(ctx) }

func (s *seat) Attest(ctx context.Context, chainID string, account mpow.Account, height int64, blockHash [32]byte) (mpow.Register, error) {
	return s.now().Attest(ctx, chainID, account, height, blockHash)
}
func (s *seat) Begin(ctx context.Context, root cid.Cid, maxSize uint64) error {
	return s.now().Begin(ctx, root, maxSize)
}
func (s *seat) Seal(ctx context.Context, root, block cid.Cid, data []byte) error {
	return s.now().Seal(ctx, root, block, data)
}
func (s *seat) Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	return s.now().Missing(ctx, root)
}
func (s *seat) Commit(ctx context.Context, root cid.Cid) (uint64, error) {
	return s.now().Commit(ctx, root)
}
func (s *seat) Open(ctx context.Context, block cid.Cid) ([]byte, error) {
	return s.now().Open(ctx, block)
}
func (s *seat) Has(ctx context.Context, block cid.Cid) (bool, error) { return s.now().Has(ctx, block) }
func (s *seat) Size(ctx context.Context, block cid.Cid) (int, error) { return s.now().Size(ctx, block) }
func (s *seat) Drop(ctx context.Context, root cid.Cid) error         { return s.now().Drop(ctx, root) }
func (s *seat) Files(ctx context.Context) ([]mpow.File, error)       { return s.now().Files(ctx) }
func (s *seat) Pending(ctx context.Context) ([]cid.Cid, error)       { return s.now().Pending(ctx) }
func (s *seat) FillSRD(ctx context.Context, units int) error         { return s.now().FillSRD(ctx, units) }
func (s *seat) Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (mpow.Signed, error) {
	return s.now().Report(ctx, slot, seed, head, list)
}
func (s *seat) Recover(ctx context.Context, generation uint64, slot mpow.Slot, seed [32]byte) (mpow.Recover, error) {
	return s.now().Recover(ctx, generation, slot, seed)
}
func (s *seat) Page(ctx context.Context, number uint64) (mpow.Page, error) {
	return s.now().Page(ctx, number)
}
func (s *seat) Verify(ctx context.Context, root cid.Cid) (mpow.Verified, error) {
	return s.now().Verify(ctx, root)
}
func (s *seat) VerifySRD(ctx context.Context) (mpow.Verified, error) { return s.now().VerifySRD(ctx) }
func (s *seat) Close() error                                         { return s.now().Close() }

// ProverAnswer is GET prover: the enclave of this node, and how the chain stands to
// it.
type ProverAnswer struct {
	Height int64           `json:"height"`
	Slot   mpow.Slot       `json:"slot"`
	Prover mpow.ProverInfo `json:"prover"`
	Chain  string          `json:"chain_id"`
	Node   string          `json:"node"`

	Registered    bool        `json:"registered"` // the chain has this enclave's key for this node
	AttestedUntil mpow.Slot   `json:"attested_until"`
	Graced        mpow.Slot   `json:"graced_until"` // reports are taken until then, and the registration lapses
	LastSlot      mpow.Slot   `json:"last_slot"`    // of the last report that the chain took
	Misses        uint64      `json:"misses"`
	Faults        uint64      `json:"faults"` // draws not answered
	SRDBytes      uint64      `json:"srd_bytes"`
	FileBytes     uint64      `json:"file_bytes"` // as the chain has them: the last report's
	Last          *LastReport `json:"last_report,omitempty"`
	Wanted        int         `json:"srd_wanted"` // units that the settings ask for
	Upgrade       *Upgrade    `json:"upgrade,omitempty"`
}

// An Upgrade is a hand-over that was asked for, and what became of it.
type Upgrade struct {
	Socket string `json:"socket"` // of the new prover
	State  string `json:"state"`  // waiting, done or failed
	Height int64  `json:"height"` // of the block that did it
	Error  string `json:"error,omitempty"`
}

// noProver is the answer of a node without a prover: it names one that has one, if the chain knows any.
func (n *Node) noProver() error {
	such := ""
	for node := range n.chain.View().Nodes("") {
		if id, err := peer.IDFromBytes([]byte(node.Account)); err == nil && id != n.id {
			such = ", such as " + id.String()
			break
		}
	}
	return badRequest("node %v is of the role %s and has no prover: ask a storage node%s, by the socket in its home: --node HOME/api.sock; what the chain has of one, any node knows: `lode node list`", n.id, n.c.Role, such)
}

func (n *Node) getProver(r *http.Request) (any, error) {
	if n.seat == nil {
		return nil, n.noProver()
	}
	info, err := n.seat.Info(r.Context())
	if err != nil {
		return nil, &failure{status: http.StatusServiceUnavailable, text: "the prover does not answer: " + err.Error()}
	}
	v := n.chain.View()
	last, _ := n.reporter.state()
	a := ProverAnswer{
		Height: v.Height(), Slot: v.Slot(), Prover: info, Chain: v.ChainID(), Node: n.id.String(), Last: &last, Wanted: n.c.Keeper.SRDUnits,
		Upgrade: n.reporter.upgradeState(),
	}
	if node, ok := v.Node(n.id); ok {
		a.Registered = string(node.Key) == string(info.Key)
		a.AttestedUntil, a.LastSlot = node.AttestedUntil, node.LastSlot
		a.Graced = node.AttestedUntil + mpow.Slot(v.Params().Mpow.GraceSlots)
		a.Misses, a.Faults, a.SRDBytes, a.FileBytes = node.Misses, node.Faults, node.SRDBytes, node.FileBytes
	}
	return a, nil
}

// ProverFilesAnswer is GET prover/files: what the enclave holds.
type ProverFilesAnswer struct {
	Height  int64        `json:"height"`
	Files   []ProverFile `json:"files"`
	Pending []cid.Cid    `json:"pending"` // under construction
}

// A ProverFile is a whole file in the enclave.
type ProverFile struct {
	Root   cid.Cid `json:"root"`
	Size   uint64  `json:"size"`
	Order  string  `json:"order"`  // state of its order on chain
	Listed bool    `json:"listed"` // the chain has this node's replica of it
}

func (n *Node) getProverFiles(r *http.Request) (any, error) {
	if n.seat == nil {
		return nil, n.noProver()
	}
	files, err := n.seat.Files(r.Context())
	if err != nil {
		return nil, err
	}
	pending, err := n.seat.Pending(r.Context())
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := ProverFilesAnswer{Height: v.Height(), Files: []ProverFile{}, Pending: append([]cid.Cid{}, pending...)}
	for _, f := range files {
		x := ProverFile{Root: f.Root, Size: f.Size, Order: "none"}
		if o, ok := v.File(f.Root); ok {
			x.Order = o.State.String()
			_, x.Listed = o.Replica(n.id)
		}
		a.Files = append(a.Files, x)
	}
	return a, nil
}

// VerifiedAnswer is POST prover/verify: what came of reading all of it.
type VerifiedAnswer struct {
	Root string `json:"root"` // empty: the random data
	mpow.Verified
}

// postVerify reads a whole file, ?cid=…, or without one all random data.
func (n *Node) postVerify(r *http.Request) (any, error) {
	if n.seat == nil {
		return nil, n.noProver()
	}
	text := r.URL.Query().Get("cid")
	if text == "" {
		v, err := n.seat.VerifySRD(r.Context())
		return VerifiedAnswer{Verified: v}, err
	}
	root, err := cid.Decode(text)
	if err != nil {
		return nil, badRequest("cid %q: %v", text, err)
	}
	v, err := n.seat.Verify(r.Context(), root)
	if errors.Is(err, mpow.ErrAbsent) {
		return nil, notFound("%v", err)
	}
	return VerifiedAnswer{Root: root.String(), Verified: v}, err
}

// postSRD sets how many units of random data the keeper makes, until the node ends.
func (n *Node) postSRD(r *http.Request) (any, error) {
	if n.seat == nil {
		return nil, n.noProver()
	}
	var c struct{ Units *int }
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil || c.Units == nil || *c.Units < 0 {
		return nil, badRequest("want {\"units\": N}, N zero or more")
	}
	n.keeper.setUnits(*c.Units)
	return SRDAnswer{Height: n.chain.View().Height(), Units: *c.Units, UnitBytes: n.chain.View().Params().Mpow.SRDUnit}, nil
}

// SRDAnswer is POST prover/srd: what the keeper now keeps.
type SRDAnswer struct {
	Height    int64  `json:"height"`
	Units     int    `json:"units"`
	UnitBytes uint64 `json:"unit_bytes"`
}

// postUpgrade has this node's prover hand over to another one on this machine, in
// the next slot.
func (n *Node) postUpgrade(r *http.Request) (any, error) {
	if n.seat == nil {
		return nil, n.noProver()
	}
	var c struct {
		Socket  string
		Release mpow.Release
	}
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil || c.Socket == "" {
		return nil, badRequest("want {\"socket\": PATH, \"release\": …}: %v", err)
	}
	next := enclave.New(c.Socket)
	info, err := next.Info(r.Context())
	if err != nil {
		return nil, badRequest("the new prover at %s does not answer: %v", c.Socket, err)
	}
	if _, ok := n.seat.now().(Hander); !ok {
		return nil, badRequest("this node's prover cannot hand over")
	}
	v := n.chain.View()
	if why := n.barred(v, info); why != "" {
		return nil, badRequest("%s", why)
	}
	if err := n.reporter.wantUpgrade(c.Socket, next, c.Release, func() { n.seat.set(next) }); err != nil {
		return nil, err
	}
	return *n.reporter.upgradeState(), nil
}

// barred says why the chain would not take a prover, as far as it can be told
// before; after the old one's word there is no way back.
func (n *Node) barred(v *chain.View, info mpow.ProverInfo) string {
	if node, ok := v.Node(n.id); !ok || node.Kind != info.Kind {
		return fmt.Sprintf("the new prover's kind is %v: a hand-over keeps the kind", info.Kind)
	}
	if info.Kind != mpow.KindDCAP {
		return ""
	}
	for m := range v.Measurements() {
		if m.MRENCLAVE == info.Measurement {
			if err := m.At(v.Height() + 2*v.Params().Mpow.SlotBlocks); err != nil {
				return err.Error()
			}
			return ""
		}
	}
	return fmt.Sprintf("measurement %v is not admitted by this chain", info.Measurement)
}

// postAbandon calls a hand-over off, as long as the old prover has not signed over.
func (n *Node) postAbandon(r *http.Request) (any, error) {
	if n.seat == nil {
		return nil, n.noProver()
	}
	h, ok := n.seat.now().(Hander)
	if !ok {
		return nil, badRequest("this node's prover knows no hand-over")
	}
	if err := n.reporter.callOff(r.Context(), h); err != nil {
		return nil, badRequest("%v", err)
	}
	return Upgrade{State: "failed", Error: "called off", Height: n.chain.View().Height()}, nil
}

// A proverCollector tells of the enclave, by what it last said to the reporter.
type proverCollector struct {
	reporter                                        *reporter
	info, until, files, bytes, units, lost, pending *prometheus.Desc
}

func newProverCollector(r *reporter) proverCollector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("lode_prover_"+name, help, labels, nil)
	}
	return proverCollector{
		r, d("info", "1 for the kind of evidence of this node's prover, and the mode it runs in.", "kind", "mode"),
		d("attested_slots_left", "Slots until this node's registration has to be renewed; below zero within the grace."),
		d("files", "Whole files in the prover."), d("file_bytes", "Bytes of them."), d("srd_units", "Units of sealed random data."),
		d("lost_files_total", "Files found damaged since the prover started."), d("pending_files", "Files under construction in the prover."),
	}
}

// Describe implements prometheus.Collector.
func (c proverCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.until, c.files, c.bytes, c.units, c.lost, c.pending} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c proverCollector) Collect(out chan<- prometheus.Metric) {
	_, info := c.reporter.state()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.info, 1, info.Kind.String(), info.Mode)
	v := c.reporter.chain.View()
	if node, ok := v.Node(c.reporter.me); ok {
		gauge(c.until, float64(node.AttestedUntil)-float64(v.Slot()))
	}
	gauge(c.files, float64(info.Files))
	gauge(c.bytes, float64(info.FileBytes))
	gauge(c.units, float64(info.Units))
	gauge(c.pending, float64(info.Pending))
	out <- prometheus.MustNewConstMetric(c.lost, prometheus.CounterValue, float64(info.Lost))
}
