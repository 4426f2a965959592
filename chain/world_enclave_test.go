package chain

import (
	"crypto/ed25519"
	"math"

	"github.com/lode-node/lode/mpow"
)

// A worldNode is an enclave that may lie.
type worldNode struct {
	hardware bool
	steady   bool // misses few slots
	cpu      byte // its processor, if it has hardware
	keys     int  // how many enclaves it has had
	held     map[int]bool
	slot     mpow.Slot // of its last report

	recovery mpow.Recovery // the last one signed
	pages    []mpow.File   // its files
}

// attested is the registration of a key by name's enclave, at a height.
func (w *world) attested(name string, key ed25519.PrivateKey, at int64) mpow.Register {
	v, n := w.view(), w.nodes[name]
	hash, _ := v.BlockHash(at)
	r := mpow.Register{Kind: mpow.KindSimulated, Key: key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(), Height: at, BlockHash: hash}
	account := mpow.Account(w.id(name))
	if !n.hardware {
		r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(mpow.ReportData(v.ChainID(), r.Kind, r.Key, account, at, hash, r.StateRoot)))
		return r
	}
	r.Kind, r.Measurement = mpow.KindDCAP, hardwareBuild.MRENCLAVE
	r.Evidence = encode(mpow.Verdict{
		MREnclave: hardwareBuild.MRENCLAVE, SVN: 1, Status: "UpToDate", QEStatus: "UpToDate", SGXType: "Standard", PPID: [16]byte{n.cpu}, FMSPC: [6]byte{n.cpu},
		ReportData: mpow.ReportData(v.ChainID(), r.Kind, r.Key, account, at, hash, r.StateRoot),
	})
	return r
}

// register returns a registration of name: a renewal, of another enclave, or bad.
func (w *world) register(name string) mpow.Register {
	n := w.nodes[name]
	if w.likely(10) {
		n.keys++
		clear(n.held)
	}
	r := w.attested(name, w.enclave(name), max(1, w.height()-w.rng.Int64N(3)))
	switch w.rng.IntN(25) {
	case 0:
		r.Kind = pick(w.rng, 0, mpow.KindDCAP, 9)
	case 1:
		r.Height, r.Key = math.MinInt64, r.Key[:5]
	case 2:
		r.Evidence = nil
	}
	return r
}

// slotWork is what name's enclave says in the slot of the next block: a report,
// once, a page of its recovery, seldom a recovery or a hand-over.
func (w *world) slotWork(name string) {
	v, n := w.view(), w.nodes[name]
	slot := v.Params().SlotOf(v.Height() + 1)
	node, ok := v.Node(w.id(name))
	seed, known := v.Seed(slot)
	if !ok {
		if w.likely(10) {
			r := w.register(name)
			w.offer(name, Msg{Work: &mpow.Msg{Register: &r}})
		}
		return
	}
	switch {
	case node.Recovering != nil && w.likely(75):
		w.offer(name, w.page(name, node))
	case !known || n.slot == slot:
	case uint64(node.AttestedUntil) < uint64(slot)+3 && w.likely(40):
		r := w.register(name)
		w.offer(name, Msg{Work: &mpow.Msg{Register: &r}})
	case w.rng.IntN(150) == 0:
		w.offer(name, w.recover(name, node, slot, seed))
	case w.rng.IntN(150) == 0:
		w.offer(name, w.handover(name, node, slot, seed))
	case n.steady && w.likely(60) || w.likely(20):
		n.slot = slot
		w.give(name, w.report(name, node, slot, seed), 0)
	}
}

// report returns what the enclave of name says of a slot, which is not always
// true.
func (w *world) report(name string, node mpow.Node, slot mpow.Slot, seed [32]byte) Msg {
	v, n := w.view(), w.nodes[name]
	r := mpow.Report{ChainID: v.ChainID(), Account: node.Account, Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last, Slot: slot, Seed: seed,
		SRDBytes: v.Params().Mpow.SRDUnit * w.rng.Uint64N(5), FileBytes: node.FileBytes}
	sealed := len(w.files) * 2 / 3 // the others nobody ever has
	from := w.rng.IntN(sealed)
	for k := range min(4, sealed) {
		i := (from + k) % sealed
		file := w.files[i]
		switch {
		case w.rng.IntN(60) == 0: // a lie, of any size
			file.Size = pick[uint64](w.rng, 0, 1, testSize*2, math.MaxUint64)
			list := pick(w.rng, &r.Added, &r.Dropped, &r.Listed)
			*list = append(*list, file)
		case n.held[i] && w.rng.IntN(15) == 0:
			r.Dropped, n.held[i] = append(r.Dropped, file), false
		case n.held[i] && w.likely(30):
			r.Listed = append(r.Listed, file)
		case !n.held[i] && w.likely(25):
			r.Added, n.held[i] = append(r.Added, file), true
		}
	}
	sum := node.Files
	for _, f := range r.Added {
		sum.AddFile(f)
		r.FileBytes += f.Size
	}
	for _, f := range r.Dropped {
		sum.SubFile(f)
		r.FileBytes -= f.Size
	}
	if r.FilesRoot = sum.Digest(); w.rng.IntN(50) == 0 {
		r.Seed[0]++
	}
	signed, err := r.Sign(w.enclave(name))
	w.must(err)
	return Msg{Work: &mpow.Msg{Report: &signed}}
}

// answer has name answer an open draw, right or wrong, for nothing or not.
func (w *world) answer(name string) {
	for _, d := range w.view().Draws() {
		if d.State != "open" || w.likely(60) {
			continue
		}
		a := mpow.Answer{Slot: d.Slot, Draw: d.Number}
		if i := w.fileNumber(d.Root); i >= 0 {
			a.Blocks = [][]byte{[]byte(worldFile(i))}
		}
		if w.likely(15) {
			a.Blocks = append(a.Blocks, []byte("more"))
		}
		if m := (Msg{Work: &mpow.Msg{Answer: &a}}); w.likely(80) {
			w.give(name, m, 0)
		} else {
			w.offer(name, m)
		}
		return
	}
}

// recover returns the word of an enclave that begins again with what it holds.
func (w *world) recover(name string, node mpow.Node, slot mpow.Slot, seed [32]byte) Msg {
	n := w.nodes[name]
	n.pages = nil
	b := mpow.Recovery{ChainID: w.genesis.ChainID, Account: node.Account, Kind: node.Kind, Generation: node.Generation + 1, Slot: slot, Seed: seed}
	var sum mpow.LtHash
	for i, f := range w.files {
		if n.held[i] && len(n.pages) < 5 {
			n.pages, b.FileBytes = append(n.pages, f), b.FileBytes+f.Size
			sum.AddFile(f)
		} else {
			n.held[i] = false
		}
	}
	if b.FilesRoot = sum.Digest(); w.rng.IntN(5) == 0 {
		b.Generation += w.rng.Uint64N(2) // not the next one
	}
	n.recovery = b
	r, err := b.Sign(w.enclave(name))
	w.must(err)
	return Msg{Work: &mpow.Msg{Recover: &r}}
}

// page returns the next page of a recovery, or a wrong one.
func (w *world) page(name string, node mpow.Node) Msg {
	n := w.nodes[name]
	from := min(int(node.Recovering.Pages), len(n.pages)) // a file each
	b := mpow.PageBody{ChainID: w.genesis.ChainID, Account: node.Account, Kind: node.Kind, Generation: node.Generation, FilesRoot: n.recovery.FilesRoot,
		Page: node.Recovering.Pages, Files: n.pages[from:min(from+1, len(n.pages))]}
	if w.rng.IntN(6) == 0 {
		b.Page++
	}
	p, err := b.Sign(w.enclave(name))
	w.must(err)
	return Msg{Work: &mpow.Msg{Page: &p}}
}

// handover returns the words of two enclaves of which the first gives way, or
// does not.
func (w *world) handover(name string, node mpow.Node, slot mpow.Slot, seed [32]byte) Msg {
	v, n, old := w.view(), w.nodes[name], w.enclave(name)
	n.keys += 1000
	key := w.enclave(name)
	r := w.attested(name, key, v.Height())
	rep, err := mpow.Report{ChainID: v.ChainID(), Account: node.Account, Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last, Slot: slot, Seed: seed,
		SRDBytes: node.SRDBytes, FileBytes: node.FileBytes, SRDRoot: node.SRDRoot, FilesRoot: node.FilesRoot}.Sign(key)
	w.must(err)
	h := mpow.Handover{Register: r, Report: rep}
	h.Sig = ed25519.Sign(old, mpow.HandoverBytes(v.ChainID(), node.Account, node.Kind, node.Generation, r.Key, r.Measurement, node.Head()))
	if node.LastSlot == slot || w.rng.IntN(4) == 0 {
		n.keys -= 1000 // it will be refused: the old one goes on
		if w.likely(50) {
			h.Sig = nil
		}
	}
	return Msg{Work: &mpow.Msg{Handover: &h}}
}
