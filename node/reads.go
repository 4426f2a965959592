package node

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// Status tells how the node is.
func (n *Node) Status() StatusAnswer {
	v, s := n.chain.View(), n.chain.Status()
	p := v.Params()
	a := StatusAnswer{
		Height: v.Height(), AppHash: hex.EncodeToString(v.AppHash()), ChainID: v.ChainID(), Class: v.Class(),
		Slot: v.Slot(), Era: p.EraOf(v.Height()), ID: n.id, Role: n.c.Role, Kind: n.kind, Simulated: p.Mpow.AllowSimulated,
		Version: n.c.Version, CatchingUp: s.CatchingUp, Validator: s.Validator, ChainPeers: s.Peers, Stopped: s.Stopped,
		Peers: len(n.host.Network().Peers()), Addrs: n.Addrs(), Gateway: n.gateway, Faults: n.faults.On(),
		Work: []Work{}, Failed: []Failure{},
	}
	if a.Disk = n.disk(); n.full.Load() != nil {
		a.Stopped = (*n.full.Load()).Error()
	}
	if n.keeper == nil {
		return a
	}
	a.Standing = v.Stake(n.id).Why
	last, info := n.reporter.state()
	a.Report = &last
	if info.Kind != 0 { // asked by the loop already
		a.Prover = &info
	}
	a.Work, a.Failed = n.keeper.state()
	return a
}

// state returns copies of what is under way and of what failed, by root.
func (k *keeper) state() ([]Work, []Failure) {
	k.mu.Lock()
	defer k.mu.Unlock()
	work, failed := []Work{}, []Failure{}
	for _, w := range k.under {
		work = append(work, Work{Root: w.Root, Since: w.Since, Blocks: atomic.LoadInt64(&w.Blocks), Bytes: atomic.LoadInt64(&w.Bytes)})
	}
	for c, text := range k.failed {
		failed = append(failed, Failure{Root: c, Error: text})
	}
	slices.SortFunc(work, func(a, b Work) int { return strings.Compare(a.Root.String(), b.Root.String()) })
	slices.SortFunc(failed, func(a, b Failure) int { return strings.Compare(a.Root.String(), b.Root.String()) })
	return work, failed
}

func (n *Node) getParams(*http.Request) (any, error) {
	v := n.chain.View()
	return ParamsAnswer{Height: v.Height(), Params: Params{ChainID: v.ChainID(), Class: v.Class(), Params: v.Params()}}, nil
}

func (n *Node) getGenesis(*http.Request) (any, error) {
	if n.genesis.ChainID == "" {
		return nil, notFound("genesis: this node was handed its chain and has no file of it")
	}
	return GenesisAnswer{Height: n.chain.View().Height(), Genesis: n.genesis}, nil
}

func (n *Node) getAccount(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := v.Account(id)
	return AccountAnswer{Height: v.Height(), ID: id, Nonce: a.Nonce, Free: a.Free}, nil
}

func (n *Node) getPending(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	q := n.chain.Queue(id)
	a := PendingAnswer{Height: q.Height, ID: id, Nonce: q.Account.Nonce, Next: q.Next, Free: q.Account.Free, Pending: []PendingTx{}}
	for _, t := range q.Waiting {
		a.Pending = append(a.Pending, PendingTx{Hash: hex.EncodeToString(t.Hash[:]), Nonce: t.Nonce, Fee: t.Fee, Bid: t.Bid, Bytes: t.Bytes})
	}
	return a, nil
}

func (n *Node) getQuote(r *http.Request) (any, error) {
	size, err := queryNumber(r, "size")
	if err != nil {
		return nil, err
	}
	blocks, err := queryNumber(r, "blocks")
	if err != nil {
		return nil, err
	}
	m := market.Place{Root: anyRoot.Bytes(), Size: size, Blocks: int64(blocks)}
	if text := r.URL.Query().Get("root"); text != "" {
		c, err := cid.Decode(text)
		if err != nil {
			return nil, badRequest("root=%q: %v", text, err)
		}
		m.Root = cid.NewCidV1(c.Type(), c.Hash()).Bytes()
	}
	if r.URL.Query().Get("tip") != "" {
		tip, err := queryNumber(r, "tip")
		if err != nil {
			return nil, err
		}
		m.Tip = coin.Amount(tip)
	}
	payer, err := queryAccount(r, "account")
	if err != nil {
		return nil, err
	}
	if payer == "" {
		payer = n.id
	}
	v := n.chain.View()
	offer, err := v.Offer(payer, m)
	if err != nil {
		return nil, err
	}
	return QuoteAnswer{Height: v.Height(), Duration: int64(blocks), Offer: offer}, nil
}

// anyRoot stands for a file that nobody has ordered, in quotes without a root.
var anyRoot = func() cid.Cid {
	h, err := multihash.Sum([]byte("lode/quote/v1: a file that nobody has ordered"), multihash.SHA2_256, -1)
	if err != nil {
		panic("node: " + err.Error())
	}
	return cid.NewCidV1(cid.Raw, h)
}()

// maxHistory is the most events of one answer.
const maxHistory = 1000

// past reads the query of a history and answers it.
func (n *Node) past(r *http.Request, of func(v *chain.View, kinds []string, before int64, limit int) []chain.Past) (any, error) {
	v, q := n.chain.View(), r.URL.Query()
	limit, before := uint64(100), uint64(v.Height()+1)
	for name, x := range map[string]*uint64{"limit": &limit, "before": &before} {
		if q.Get(name) != "" {
			var err error
			if *x, err = queryNumber(r, name); err != nil {
				return nil, err
			}
		}
	}
	if limit > maxHistory {
		return nil, badRequest("limit=%d: at most %d; go on with before=HEIGHT of the last one", limit, maxHistory)
	}
	var kinds []string
	if k := q.Get("kind"); k != "" {
		kinds = strings.Split(k, ",")
	}
	for _, k := range kinds {
		if all := chain.EventKinds(); !slices.Contains(all, k) {
			return nil, badRequest("kind=%q: want some of %s", k, strings.Join(all, ","))
		}
	}
	return HistoryAnswer{Height: v.Height(), Events: of(v, kinds, int64(before), int(limit))}, nil
}

func (n *Node) getChainHistory(r *http.Request) (any, error) {
	return n.past(r, (*chain.View).ChainHistory)
}

func (n *Node) getAccountHistory(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return n.past(r, func(v *chain.View, kinds []string, before int64, limit int) []chain.Past {
		return v.AccountHistory(id, kinds, before, limit)
	})
}

func (n *Node) getOrderHistory(r *http.Request) (any, error) {
	c, err := pathCID(r)
	if err != nil {
		return nil, err
	}
	return n.past(r, func(v *chain.View, kinds []string, before int64, limit int) []chain.Past {
		return v.OrderHistory(c, kinds, before, limit)
	})
}

func (n *Node) getOrders(r *http.Request) (any, error) {
	payer, err := queryAccount(r, "account")
	if err != nil {
		return nil, err
	}
	limit, err := pageLimit(r)
	if err != nil {
		return nil, err
	}
	var after cid.Cid
	if text := r.URL.Query().Get("after"); text != "" {
		if after, err = cid.Decode(text); err != nil {
			return nil, badRequest("after=%q: %v; want the next of the page before", text, err)
		}
		after = cid.NewCidV1(after.Type(), after.Hash())
	}
	v := n.chain.View()
	a, all := OrdersAnswer{Height: v.Height(), Orders: []Order{}}, v.Files(after)
	if payer != "" {
		all = v.OrdersOf(payer, after)
	}
	for f := range all {
		if len(a.Orders) == limit {
			a.Next = a.Orders[limit-1].Root.String()
			break
		}
		a.Orders = append(a.Orders, n.order(v, f))
	}
	return a, nil
}

// Entries of one page of a list: as many as are given unless the query says
// otherwise, and the most that it may say.
const usualPage, maxPage = 100, 1000

// pageLimit reads how many entries of a list are wanted, by limit=.
func pageLimit(r *http.Request) (int, error) {
	if r.URL.Query().Get("limit") == "" {
		return usualPage, nil
	}
	limit, err := queryNumber(r, "limit")
	if err != nil {
		return 0, err
	}
	if limit == 0 || limit > maxPage {
		return 0, badRequest("limit=%d: want 1 to %d; go on with after=NEXT of the page before", limit, maxPage)
	}
	return int(limit), nil
}

// accountPage reads which entries of a list by account are wanted: limit of them,
// behind after, by after= and limit=.
func accountPage(r *http.Request) (after peer.ID, limit int, err error) {
	if limit, err = pageLimit(r); err != nil {
		return "", 0, err
	}
	after, err = queryAccount(r, "after")
	return after, limit, err
}

func (n *Node) getOrder(r *http.Request) (any, error) {
	c, err := pathCID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	f, ok := v.File(c)
	if !ok {
		return nil, notFound("order %v: none on chain at height %d: it was never placed, was refunded, or has closed", c, v.Height())
	}
	return OrderAnswer{Height: v.Height(), Order: n.order(v, f)}, nil
}

// order shows a file record for people.
func (n *Node) order(v *chain.View, f market.File) Order {
	p := v.Params()
	o := Order{
		Root: f.Root.Cid(), State: f.State, Size: f.Size, Opened: f.Opened, Expiry: f.Expiry, Pool: f.Pool,
		Payers: slices.Clone(f.Payers), Sources: f.Sources(), Payments: []Payment{}, Replicas: []Replica{},
	}
	for _, y := range f.Payments {
		o.Size = max(o.Size, y.Size)
		o.Payments = append(o.Payments, Payment{Payer: y.Payer, Size: y.Size, Amount: y.Sum(), Tip: y.Tip, Blocks: y.Blocks})
		if !slices.Contains(o.Payers, y.Payer) {
			o.Payers = append(o.Payers, y.Payer)
		}
	}
	if f.Prepaid != nil {
		o.Prepaid = f.Prepaid.Amount
	}
	if f.State == market.Pending {
		o.RefundAt = p.Market.RefundAt(f)
	}
	for _, r := range f.Replicas {
		e := Replica{Node: r.Node, Owner: r.Owner, Since: p.SlotOf(r.Height), Seated: r.Seat != nil, Accrued: r.Vest.Sum(), Bonus: r.Bonus}
		if node, ok := v.Node(r.Node); ok {
			e.Kind, e.Last = node.Kind.String(), node.LastSlot
		}
		o.Replicas = append(o.Replicas, e)
	}
	o.Why = n.why(o, v)
	return o
}

// why says in a sentence what an order waits for, or what ends it.
func (n *Node) why(o Order, v *chain.View) string {
	switch o.State {
	case market.Pending:
		s := fmt.Sprintf("no holder has proved it yet; refunded at height %d if none does", o.RefundAt)
		if len(o.Sources) == 0 {
			s += "; no source was named, so holders must find it by themselves"
		}
		if n.keeper != nil {
			work, failed := n.keeper.state()
			for _, w := range work {
				if w.Root.Equals(o.Root) {
					s += fmt.Sprintf("; this node is fetching it: %d blocks, %d bytes so far", w.Blocks, w.Bytes)
				}
			}
			for _, f := range failed {
				if f.Root.Equals(o.Root) {
					s += "; this node tried last: " + f.Error
				}
			}
		}
		return s
	case market.Live:
		return fmt.Sprintf("%d replicas; paid for until height %d, now %d", len(o.Replicas), o.Expiry, v.Height())
	case market.Expired:
		return fmt.Sprintf("its time ended at height %d; it closes a slot later unless ordered again", o.Expiry)
	}
	return ""
}

func (n *Node) getHolders(r *http.Request) (any, error) {
	c, err := pathCID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := HoldersAnswer{Height: v.Height(), Root: c, Holders: []Holder{}}
	for _, h := range v.Holders(c) {
		a.Holders = append(a.Holders, Holder{Node: h.Node, Owner: h.Owner, Kind: h.Kind.String(), Last: h.Last, Credit: h.Credit, Addrs: texts(h.Addrs)})
	}
	return a, nil
}

func texts(as []ma.Multiaddr) []string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.String()
	}
	return out
}

func (n *Node) getNodes(r *http.Request) (any, error) {
	after, limit, err := accountPage(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := NodesAnswer{Height: v.Height(), Nodes: []NodeEntry{}}
	for e := range v.Nodes(after) {
		if len(a.Nodes) == limit {
			a.Next = a.Nodes[limit-1].ID.String()
			break
		}
		a.Nodes = append(a.Nodes, nodeEntry(v, e))
	}
	return a, nil
}

func (n *Node) getNode(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	e, ok := v.Node(id)
	if !ok {
		return nil, notFound("node %v: not registered at height %d", id, v.Height())
	}
	return NodeAnswer{Height: v.Height(), Node: nodeEntry(v, e), Replicas: v.Replicas(id), Pay: v.Pay(id)}, nil
}

func (n *Node) getDraws(*http.Request) (any, error) {
	v := n.chain.View()
	return DrawsAnswer{Height: v.Height(), Slot: v.Slot(), Draws: v.Draws()}, nil
}

func (n *Node) getGroup(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	g := v.Group(id)
	if len(g.Members)+len(g.Allowed) == 0 {
		return nil, notFound("group of %v: none at height %d; its owner makes one with `lode group allow NODE`", id, v.Height())
	}
	return GroupAnswer{Height: v.Height(), Group: g, Workload: v.Stake(id).Workload}, nil
}

// nodeEntry shows a node record for people.
func nodeEntry(v *chain.View, e mpow.Node) NodeEntry {
	id := peer.ID(e.Account)
	workload := e.Workload()
	if e.LastSlot == 0 || e.LastSlot+1 < v.Slot() || e.LastSlot <= e.PunishedUntil {
		workload = 0 // silent in the last full slot, or punished (spec §3.7)
	}
	return NodeEntry{
		ID: id, Owner: peer.ID(e.Owner()), Kind: e.Kind.String(), Key: hex.EncodeToString(e.Key), AttestedUntil: e.AttestedUntil,
		Seq: e.Seq, Last: e.LastSlot, Reports: e.Reports, Misses: e.Misses, PunishedUntil: e.PunishedUntil,
		Faults: e.Faults, Generation: e.Generation, Lapsed: e.Lapsed, Recovering: e.Recovering,
		SRDBytes: e.SRDBytes, FileBytes: e.FileBytes, Power: e.Power, Workload: workload, Addrs: texts(v.Addrs(id)),
	}
}

func (n *Node) getPeers(*http.Request) (any, error) {
	v := n.chain.View()
	a := PeersAnswer{Height: v.Height(), Peers: []Peer{}}
	for _, p := range n.ex.Peers() {
		e := Peer{PeerStat: p}
		if node, ok := v.Node(p.ID); ok {
			e.Kind = node.Kind.String()
		}
		a.Peers = append(a.Peers, e)
	}
	return a, nil
}

func (n *Node) getSupply(*http.Request) (any, error) {
	v := n.chain.View()
	return SupplyAnswer{Height: v.Height(), Supply: v.Supply()}, nil
}

func (n *Node) getFetches(*http.Request) (any, error) {
	return FetchesAnswer{Height: n.chain.View().Height(), Fetches: n.ex.Fetches()}, nil
}

func (n *Node) getServing(*http.Request) (any, error) {
	return ServingAnswer{Height: n.chain.View().Height(), ServeStat: n.ex.Serving()}, nil
}
