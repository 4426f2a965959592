package bitswap

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// Constants of paying, µs where they are times.
const (
	signEvery   = 2 * secondMicros  // after so long what came is signed for, if it is less than a step (spec §7.5)
	tabLook     = 5 * secondMicros  // a peer's tab is looked up so often at most
	payAgain    = secondMicros      // after a stream that broke; doubles up to payAgainMost
	payRefused  = 60 * secondMicros // after a refusal; doubles up to payAgainMost
	payAgainMax = 3600 * secondMicros
	payersKept  = 4096 // servers that are remembered

	// twiceShare bounds the bytes that came too late and are paid nevertheless: one
	// in so many of those that came in time. The server did the work; that nobody
	// can make a client pay for what it has is this bound.
	twiceShare = 16
)

type payState uint8

const (
	payIdle    payState = iota // no stream
	payOpening                 // greeted, no terms yet
	payAgreed                  // the price is agreed: what comes is signed for
)

// A payment is the client's end of one stream of receipts.
type payment struct {
	id     peer.ID
	state  payState
	tab    credit.Tab
	looked int64 // when tab was; 0 = never
	price  credit.Price
	step   uint64
	minor  uint8

	last   credit.Receipt // our last word, signed or about to be
	kept   uint64         // bytes of it that the server says it keeps
	bytes  uint64         // came and are not signed for
	since  int64          // when the first of them came
	came   uint64         // in time, under this tab
	twice  uint64         // too late, and counted
	unpaid uint64         // came and were not paid for: no agreement, or no money

	until  int64 // no stream is opened before
	closed bool  // by a refusal, not by chance: what comes until then is not paid
	tries  uint
	why    string // it is not paid; "" if it is
}

type payKind uint8

const (
	payOpen  payKind = iota // open a stream and greet
	paySign                 // sign receipt and send it
	payClose                // say refusal and end the stream
)

// A payAct is a decision: what to do for one server.
type payAct struct {
	kind    payKind
	peer    peer.ID
	opened  int64          // of payOpen: the tab
	receipt credit.Receipt // of paySign, unsigned
	refusal *receiptRefusal
}

// A payer decides when a client signs for what came, and for how much (spec
// §7.5). Events in, decisions out: no clock, no goroutine, no lock. Times are µs
// since 1970. It opens no tab and never signs beyond a tab, a price or a budget.
type payer struct {
	chain  string
	me     peer.ID
	most   credit.Price
	budget Budget
	purse  purse
	tab    func(server peer.ID) (credit.Tab, bool) // ours for it, by the chain

	all  map[peer.ID]*payment
	list []*payment // in the order in which they came to be known
	out  []payAct
	sum  payCounts
}

// payCounts are of what happened since the start.
type payCounts struct {
	signed  uint64 // receipts
	bytes   uint64 // signed for
	grains  coin.Amount
	refused map[uint8]uint64 // streams ended, by why
}

func newPayer(chain string, me peer.ID, most credit.Price, b Budget, x purse, tab func(peer.ID) (credit.Tab, bool)) *payer {
	return &payer{chain: chain, me: me, most: most, budget: b, purse: x, tab: tab, all: map[peer.ID]*payment{}, sum: payCounts{refused: map[uint8]uint64{}}}
}

// take returns what was decided since it was last called.
func (y *payer) take() []payAct {
	out := y.out
	y.out = nil
	return out
}

// payment returns that of p.
func (y *payer) payment(p peer.ID) *payment {
	a := y.all[p]
	if a == nil {
		y.trim()
		a = &payment{id: p}
		y.all[p] = a
		y.list = append(y.list, a)
	}
	return a
}

// trim forgets those longest known that have no stream, an eighth at once.
func (y *payer) trim() {
	if len(y.list) < payersKept {
		return
	}
	extra := payersKept / 8
	y.list = slices.DeleteFunc(y.list, func(a *payment) bool {
		if extra == 0 || a.state != payIdle || a.last.Opened != 0 {
			return false
		}
		extra--
		delete(y.all, a.id)
		return true
	})
}

// look reads the tab for a, unless it was looked at a moment ago.
func (y *payer) look(now int64, a *payment) {
	if a.looked != 0 && now-a.looked < tabLook {
		return
	}
	a.looked = now
	tab, _ := y.tab(a.id)
	if tab.Opened != a.tab.Opened {
		if a.state != payIdle {
			y.end(now, a, refuse(refusedTab, "the tab of height %d is closed", a.tab.Opened))
		}
		a.last, a.kept, a.bytes, a.came, a.twice = credit.Receipt{}, 0, 0, 0, 0
	}
	if tab.Opened != a.tab.Opened || tab.Deposited != a.tab.Deposited {
		a.until, a.closed, a.tries, a.why = 0, false, 0, ""
	}
	a.tab = tab
}

// arrived says that n bytes of blocks that we asked for came from p, in time or
// too late to be of use. It reports whether there is something to do, or to be
// done in a while.
func (y *payer) arrived(now int64, p peer.ID, n uint64, late bool) bool {
	a := y.payment(p)
	y.look(now, a)
	if a.tab.Opened == 0 {
		return false // the usual case: nobody pays and nobody has to
	}
	if late {
		if a.twice+n > a.came/twiceShare {
			a.unpaid += n
			return false
		}
		a.twice += n
	} else {
		a.came += n
	}
	first := a.bytes == 0
	if first {
		a.since = now
	}
	a.bytes += n
	switch {
	case a.closed && now < a.until || a.tab.Closes != 0 && a.state == payIdle:
		a.unpaid, a.bytes = a.unpaid+a.bytes, 0
	case now < a.until:
	case a.state == payIdle:
		a.state = payOpening
		y.out = append(y.out, payAct{kind: payOpen, peer: p, opened: a.tab.Opened})
	case a.state == payAgreed && a.bytes >= a.step/2:
		y.sign(now, a)
	}
	return first || len(y.out) > 0
}

// terms takes the server's answer to our greeting. Whoever calls it has looked at
// the signature of last, the receipt that the server keeps; zero means none.
func (y *payer) terms(now int64, p peer.ID, t *receiptTerms, last credit.Receipt) {
	a := y.payment(p)
	if a.state != payOpening {
		y.end(now, a, refuse(refusedFrame, "terms that nobody asked for"))
		return
	}
	if t.Price > y.most {
		y.end(now, a, refuse(refusedPrice, "the server asks %v, we pay at most %v", t.Price, y.most))
		return
	}
	if last.Opened != 0 {
		if err := y.adopt(a, last); err != nil {
			y.end(now, a, refuse(refusedFork, "%v", err))
			return
		}
	}
	a.state, a.price, a.step, a.minor, a.why, a.kept = payAgreed, t.Price, t.Step, min(t.Minor, receiptMinor), "", last.Bytes
	if a.last.Bytes > last.Bytes && a.last.Opened == a.tab.Opened {
		y.out = append(y.out, payAct{kind: paySign, peer: p, receipt: a.last}) // the one that was lost
	}
	if a.bytes >= a.step/2 {
		y.sign(now, a)
	}
}

// adopt takes our own earlier word from the server's mouth: after a restart we may
// not know it any more. It was paid for when it was signed.
func (y *payer) adopt(a *payment, last credit.Receipt) error {
	if last.ChainID != y.chain || last.Client != y.me || last.Server != a.id || last.Opened != a.tab.Opened {
		return fmt.Errorf("the server keeps a receipt of %v for %v, tab of height %d, chain %q", last.Client, last.Server, last.Opened, last.ChainID)
	}
	if a.last.Opened == 0 || last.Follows(a.last) == nil {
		a.last = last
	}
	return nil
}

// taken says that the server keeps a receipt.
func (y *payer) taken(p peer.ID, t *receiptTaken) {
	if a := y.all[p]; a != nil && a.state == payAgreed {
		a.step, a.kept, a.tries = t.Step, max(a.kept, min(t.Bytes, a.last.Bytes)), 0
	}
}

// refused says that the server ended the stream, and why.
func (y *payer) refused(now int64, p peer.ID, r *receiptRefusal) {
	if a := y.all[p]; a != nil {
		a.unpaid, a.bytes, a.closed = a.unpaid+a.bytes, 0, true
		y.rest(now, a, payRefused, r.Text)
		y.sum.refused[r.Code]++
	}
}

// lost says that the stream to p ended without a word, or never was.
func (y *payer) lost(now int64, p peer.ID, why string) {
	if a := y.all[p]; a != nil && a.state != payIdle {
		a.closed = false
		y.rest(now, a, payAgain, why)
	}
}

// rest has a without a stream for a while, longer each time.
func (y *payer) rest(now int64, a *payment, first int64, why string) {
	a.state, a.why = payIdle, why
	a.until = now + min(first<<min(a.tries, 12), payAgainMax)
	a.tries++
}

// end closes the stream of a for our own reason.
func (y *payer) end(now int64, a *payment, r *receiptRefusal) {
	a.unpaid, a.bytes, a.closed = a.unpaid+a.bytes, 0, true
	y.rest(now, a, payRefused, r.Text)
	y.sum.refused[r.Code]++
	y.out = append(y.out, payAct{kind: payClose, peer: a.id, refusal: r})
}

// sign signs for what came, as far as there is money: totals of before plus what
// that costs, rounded up. What there is no money for is not paid; the server goes
// on at a stranger's rank.
func (y *payer) sign(now int64, a *payment) {
	a.looked = 0
	y.look(now, a)
	if a.state != payAgreed || a.bytes == 0 {
		return
	}
	if a.tab.Closes != 0 {
		y.end(now, a, refuse(refusedTab, "the tab closes at height %d", a.tab.Closes))
		return
	}
	if a.last.Opened != a.tab.Opened {
		a.last = credit.Receipt{ChainID: y.chain, Client: y.me, Server: a.id, Opened: a.tab.Opened}
	}
	tab := a.tab.Deposited - min(a.last.Grains, a.tab.Deposited)
	purse := y.purse.left(y.budget, now, a.id)
	n := min(a.bytes, affords(min(tab, purse), a.price))
	if n > 0 {
		next, err := a.last.Add(n, a.price)
		if err != nil {
			y.end(now, a, refuse(refusedSpent, "%v", err))
			return
		}
		cost := next.Grains - a.last.Grains
		y.purse.spend(a.id, cost)
		y.sum.signed, y.sum.bytes, y.sum.grains = y.sum.signed+1, y.sum.bytes+n, y.sum.grains+cost
		a.last, a.bytes, a.since = next, a.bytes-n, now
		y.out = append(y.out, payAct{kind: paySign, peer: a.id, receipt: next})
	}
	if a.bytes == 0 {
		return
	}
	if tab <= purse {
		y.end(now, a, refuse(refusedSpent, "the tab of %v is used up", a.tab.Deposited))
		return
	}
	y.end(now, a, refuse(refusedSpent, "the budget of this period is used up"))
	a.until = max(a.until, y.purse.refills(y.budget))
}

// affords returns how many bytes the money pays for at a price.
func affords(money coin.Amount, p credit.Price) uint64 {
	const most = 1 << 50 // far above any step
	if p == 0 {
		return most
	}
	n, ok := coin.MulDivOK(uint64(money), 1<<30, uint64(p))
	if !ok {
		return most
	}
	return min(n, most)
}

// tick signs for what has waited long enough, and returns when to look again: 0
// for when something comes.
func (y *payer) tick(now int64) (next int64) {
	next = math.MaxInt64
	for _, a := range y.list {
		if a.state != payAgreed || a.bytes == 0 {
			continue
		}
		if now-a.since >= signEvery {
			y.sign(now, a)
		}
		if a.state == payAgreed && a.bytes > 0 {
			next = min(next, a.since+signEvery)
		}
	}
	if next == math.MaxInt64 {
		return 0
	}
	return next
}

// A Paid is one server that we have a tab for, or were refused by, as the client
// end sees it.
type Paid struct {
	Server   peer.ID        `json:"server"`
	State    string         `json:"state"` // idle, opening, agreed
	Tab      credit.Tab     `json:"tab"`
	Price    credit.Price   `json:"price"` // agreed, grains a GiB
	Step     uint64         `json:"step_bytes"`
	Receipt  credit.Receipt `json:"receipt"`        // our last word
	Kept     uint64         `json:"kept_bytes"`     // that the server says it keeps
	Unsigned uint64         `json:"unsigned_bytes"` // came, and are to be signed for
	Unpaid   uint64         `json:"unpaid_bytes"`   // came, and are not: no agreement, or no money
	Why      string         `json:"why,omitempty"`  // it is not paid
	Rests    int64          `json:"rests_us"`       // for how long nothing is tried
}

// states returns what is known of servers, by ID.
func (y *payer) states(now int64) []Paid {
	out := []Paid{}
	for _, a := range y.list {
		if a.tab.Opened == 0 && a.last.Opened == 0 {
			continue
		}
		out = append(out, Paid{
			Server: a.id, State: [...]string{"idle", "opening", "agreed"}[a.state], Tab: a.tab, Price: a.price, Step: a.step, Receipt: a.last,
			Kept: a.kept, Unsigned: a.bytes, Unpaid: a.unpaid, Why: a.why, Rests: max(a.until-now, 0),
		})
	}
	slices.SortFunc(out, func(a, b Paid) int { return cmp.Compare(a.Server, b.Server) })
	return out
}
