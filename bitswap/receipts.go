package bitswap

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// Receipts says what an exchange asks and pays for blocks (spec §7.5). A nil
// *Receipts asks nothing, pays nothing and costs nothing.
type Receipts struct {
	ChainID string
	Key     crypto.PrivKey // of the host: it signs what we owe
	// Tab is what the chain says of a client's tab for a server; false: it has
	// none. It must answer from memory and be safe for concurrent use.
	Tab func(client, server peer.ID) (credit.Tab, bool)

	// Price is what we ask, grains a GiB. Zero asks nothing: no receipts are taken,
	// and nobody is held back for want of one. It takes ServerLode.
	Price credit.Price
	// MaxPrice is the most that we pay, grains a GiB. Zero pays nothing.
	MaxPrice credit.Price
	// Budget bounds what is paid, whatever the tabs hold. It takes Enforce.
	Budget Budget

	Dir string // of the receipts kept; "" keeps them in memory
}

func (c *Receipts) validate(e *Config) error {
	switch {
	case c.ChainID == "" || len(c.ChainID) > receiptChainMost:
		return fmt.Errorf("bitswap: receipts of chain %q: want 1 to %d characters", c.ChainID, receiptChainMost)
	case c.Key == nil || c.Tab == nil:
		return errors.New("bitswap: receipts need Key and Tab")
	case !e.Host.ID().MatchesPrivateKey(c.Key):
		return fmt.Errorf("bitswap: the key for receipts is not that of %v", e.Host.ID())
	}
	for _, p := range []credit.Price{c.Price, c.MaxPrice} {
		if err := p.Check(); err != nil {
			return fmt.Errorf("bitswap: %w", err)
		}
	}
	return c.Budget.check()
}

// Bounds of streams of receipts.
const (
	streamsMost  = 1024             // that clients have open to us
	receiptWait  = 10 * time.Second // for a hello, for terms, and for each frame written
	receiptIdle  = 10 * time.Minute // without a receipt, a stream ends; the client opens another when it needs to
	receiptsRate = 64               // receipts a second that one stream brings at most; each costs a signature's check and a write to disk
)

// receipts are both ends of all streams of receipts of an exchange.
type receipts struct {
	cfg     Receipts
	e       *Exchange
	host    host.Host
	me      peer.ID
	book    *receiptBook
	m       *receiptMetrics
	streams streams // that others opened to us, and that we read
	kick    chan struct{}

	mu     sync.Mutex // guards the fields below
	payer  *payer     // nil: we pay nothing
	sends  map[peer.ID]*paySend
	takes  map[peer.ID]*taking // by client
	lately map[peer.ID]string  // why receipts of a client were refused last; bounded
}

// newReceipts opens what is kept. It starts nothing.
func newReceipts(e *Exchange, c Receipts) (*receipts, error) {
	book, err := openReceipts(c.Dir)
	if err != nil {
		return nil, err
	}
	r := &receipts{
		cfg: c, e: e, host: e.cfg.Host, me: e.cfg.Host.ID(), book: book, kick: make(chan struct{}, 1),
		sends: map[peer.ID]*paySend{}, takes: map[peer.ID]*taking{}, lately: map[peer.ID]string{},
	}
	if c.MaxPrice > 0 && c.Budget.Most > 0 && e.cfg.Strategy == Enforce {
		r.payer = newPayer(c.ChainID, r.me, c.MaxPrice, c.Budget, book.spent(), func(server peer.ID) (credit.Tab, bool) { return c.Tab(r.me, server) })
	}
	r.m = newReceiptMetrics(r)
	return r, nil
}

// asks reports whether we want to be paid.
func (r *receipts) asks() bool {
	_, ours := r.e.server.(*server)
	return r.cfg.Price > 0 && ours
}

// start has the ends answer. The server exists.
func (r *receipts) start() {
	if s, ours := r.e.server.(*server); ours && r.cfg.Price > 0 {
		s.mu.Lock()
		s.q.owed = newOwed()
		s.mu.Unlock()
		r.host.SetStreamHandler(receiptID, r.serve)
	}
	if r.payer != nil {
		r.e.wg.Add(1)
		go r.pay()
	}
	r.e.m.add(r.m)
}

// close ends all streams and puts on disk what clients owe. Nothing of the
// server runs any more.
func (r *receipts) close() error {
	if r.asks() {
		r.host.RemoveStreamHandler(receiptID)
	}
	r.streams.close()
	var err error
	if r.payer != nil {
		err = r.book.spend(r.payer.purse.copy()) // no more than was spent
	}
	return errors.Join(err, r.book.close(r.owes))
}

// end resets the streams that we opened, so that whoever reads them ends.
func (r *receipts) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sends {
		s.end()
	}
}

// owes returns what p owes by our count.
func (r *receipts) owes(p peer.ID) (int64, bool) {
	s, ours := r.e.server.(*server)
	if !ours || s.q.owed == nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.q.owed.debts.Peek(p); !ok {
		return 0, false
	}
	return s.q.owed.debt(s.now(), p).owes, true
}

// paid returns how many bytes of what p took it has paid for: giving, in another
// coin (spec §7.4).
func (e *Exchange) paid(p peer.ID) uint64 {
	if e.receipts == nil {
		return 0
	}
	return e.receipts.book.paid(p)
}

// noted remembers why receipts of p were refused.
func (r *receipts) noted(p peer.ID, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lately) >= peersNoted {
		clear(r.lately)
	}
	r.lately[p] = why
}

// An Exposed is one peer that our server gave blocks to on credit.
type Exposed struct {
	Peer  peer.ID `json:"peer"`
	Owes  int64   `json:"owes_bytes"` // given and not signed for; below zero: signed ahead
	Step  uint64  `json:"step_bytes"` // most that it may owe while we are loaded
	Paid  uint64  `json:"paid_bytes"` // that its receipts covered, ever
	Given uint64  `json:"given_bytes"`
	Gifts uint64  `json:"gift_bytes"`    // of them, given beyond its step while nobody else had to wait
	Held  bool    `json:"held"`          // waits for its own receipt
	Open  bool    `json:"open"`          // has a stream of receipts
	Why   string  `json:"why,omitempty"` // its last stream of receipts ended
}

// A ReceiptStat is what an exchange knows of receipts.
type ReceiptStat struct {
	Price    credit.Price     `json:"price"`     // asked, grains a GiB
	MaxPrice credit.Price     `json:"max_price"` // paid at most, grains a GiB
	Budget   coin.Amount      `json:"budget"`    // grains a period
	Spent    coin.Amount      `json:"spent"`     // of it
	Refills  int64            `json:"refills"`   // when the next period begins, unix seconds; 0: nothing is paid
	Taken    uint64           `json:"taken"`     // receipts since the start
	Extended uint64           `json:"extended_bytes"`
	Signed   uint64           `json:"signed_bytes"`
	Gifts    uint64           `json:"gift_bytes"`
	Forgiven uint64           `json:"forgiven_bytes"`
	Held     uint64           `json:"held"`           // times that a peer began to wait for its own receipt
	Exposure uint64           `json:"exposure_bytes"` // what all peers together owe now
	Kept     []credit.Receipt `json:"kept"`           // of others for us: the last of each tab
	Peers    []Exposed        `json:"peers"`          // who owes most first, at most 1000
	Paid     []Paid           `json:"paid"`           // our tabs for others
}

// exposedMost bounds the peers of a ReceiptStat.
const exposedMost = 1000

// Receipts returns what is known of receipts; false if the exchange has none to do
// with.
func (e *Exchange) Receipts() (ReceiptStat, bool) {
	r := e.receipts
	if r == nil {
		return ReceiptStat{}, false
	}
	out := ReceiptStat{Price: r.cfg.Price, MaxPrice: r.cfg.MaxPrice, Kept: r.book.all(), Peers: []Exposed{}, Paid: []Paid{}}
	if out.Kept == nil {
		out.Kept = []credit.Receipt{}
	}
	r.mu.Lock()
	open, why := map[peer.ID]bool{}, map[peer.ID]string{}
	for p := range r.takes {
		open[p] = true
	}
	for p, w := range r.lately {
		why[p] = w
	}
	if y := r.payer; y != nil {
		now := e.now()
		_ = y.purse.left(y.budget, now, "")
		out.Budget, out.Spent, out.Refills = y.budget.Most, y.purse.Spent, y.purse.refills(y.budget)/secondMicros
		out.Paid = y.states(now)
	}
	r.mu.Unlock()
	r.exposed(&out, open, why)
	return out, true
}

// Unclaimed returns the receipts that others signed for us: the last of each tab,
// by client. They are money until the tab is gone.
func (e *Exchange) Unclaimed() []credit.Receipt {
	if e.receipts == nil {
		return nil
	}
	return e.receipts.book.all()
}

// ForgetReceipts drops the kept receipts of which dead says that no claim can pay
// them any more, and returns how many those were.
func (e *Exchange) ForgetReceipts(dead func(credit.Receipt) bool) (int, error) {
	if e.receipts == nil {
		return 0, nil
	}
	return e.receipts.book.drop(dead)
}
