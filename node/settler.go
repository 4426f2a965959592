package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// A due is a receipt that this node keeps, and what the chain would pay for it
// now.
type due struct {
	Receipt credit.Receipt
	Tab     credit.Tab     // of the pair; zero if none is open
	Pays    credit.Payment // nothing if the receipt adds nothing
	Fee     coin.Amount    // of the claim, at most
	Busy    bool           // a claim is under way
}

// A verdict is what becomes of a receipt.
type verdict string

const (
	claimIt  verdict = "claim"  // now
	waitFor  verdict = "wait"   // for more of it, or for a claim under way
	forgetIt verdict = "forget" // its tab is gone: no claim can pay it any more
)

// judge says what becomes of a receipt, and why (spec §7.6). A claim is sent when
// what it brings is worth its fee so many times; a tab that closes, or that has no
// more to give, is not going to be worth more, and is claimed for anything above
// the fee. The same due gives the same verdict: one that failed is judged again.
func judge(d due, worth uint64) (verdict, string) {
	switch {
	case d.Tab.Opened != d.Receipt.Opened:
		return forgetIt, "its tab is gone"
	case d.Busy:
		return waitFor, "a claim is under way"
	case d.Pays.Got == 0:
		return waitFor, "nothing is to be claimed"
	case d.Pays.Got <= d.Fee:
		return waitFor, fmt.Sprintf("%v would cost a fee of %v", d.Pays.Got, d.Fee)
	case worth == 0:
		return waitFor, "credit.claim_worth is 0: this node claims nothing by itself"
	case d.Tab.Closes != 0:
		return claimIt, fmt.Sprintf("its tab closes at height %d", d.Tab.Closes)
	case d.Receipt.Grains >= d.Tab.Deposited:
		return claimIt, "its tab is used up"
	}
	goal, ok := coin.MulDivOK(uint64(d.Fee), worth, 1)
	if !ok || uint64(d.Pays.Got) < goal {
		return waitFor, fmt.Sprintf("it brings %v, %d fees are %v", d.Pays.Got, worth, coin.Amount(goal))
	}
	return claimIt, fmt.Sprintf("it brings %v for a fee of %v", d.Pays.Got, d.Fee)
}

// A settler turns receipts into money: it claims what is worth it. It opens no
// tab and pays nobody.
type settler struct {
	chain    Chain
	me       peer.ID
	worth    uint64
	receipts func() []credit.Receipt // the last of each tab, from disk: a restart loses none
	forget   func(func(credit.Receipt) bool) (int, error)
	log      *slog.Logger
	m        *metrics

	mu   sync.Mutex // guards the fields below
	busy map[tabKey]bool
	errs map[tabKey]string // why the last claim failed
}

// A tabKey names a tab for this node.
type tabKey struct {
	client peer.ID
	opened int64
}

// claimTime bounds the wait for the block that holds a claim.
const claimTime = 30 * time.Second

// claimsAtOnce bounds the claims that wait for a block.
const claimsAtOnce = 16

// run judges all receipts at its start, at the first block of each slot, and at
// each block for those of tabs that close. Claims run in a group of their own and
// end with ctx.
func (s *settler) run(ctx context.Context) (err error) {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(claimsAtOnce)
	defer func() { err = errors.Join(err, group.Wait()) }()
	height := max(0, s.chain.View().Height()-1)
	fresh := true
	for {
		b, err := next(ctx, s.chain, height)
		if err != nil {
			return fmt.Errorf("settler: %w", err)
		}
		height = b.Height
		if b.First || slices.ContainsFunc(b.Events, func(e chain.Event) bool { return e.Node == s.me && e.Kind == "tab_closing" }) {
			fresh = true
		}
		if b.Height < s.chain.View().Height() || s.chain.Status().CatchingUp {
			continue // old state knows nothing of claims that came since
		}
		s.settle(gctx, group, fresh)
		fresh = false
	}
}

// settle does what is judged: of all receipts, or of those of closing tabs alone.
func (s *settler) settle(ctx context.Context, group *errgroup.Group, all bool) {
	dead := map[tabKey]bool{}
	for _, d := range s.look() {
		if !all && d.Tab.Closes == 0 {
			continue
		}
		switch v, why := judge(d, s.worth); v {
		case claimIt:
			s.start(ctx, group, d, why)
		case forgetIt:
			dead[tabKey{d.Receipt.Client, d.Receipt.Opened}] = true
		case waitFor:
		}
	}
	if len(dead) == 0 {
		return
	}
	n, err := s.forget(func(r credit.Receipt) bool { return dead[tabKey{r.Client, r.Opened}] })
	if err != nil {
		s.log.Error("receipts of tabs that are gone stay", "err", err)
		return
	}
	s.log.Info("receipts of tabs that are gone are forgotten", "receipts", n)
}

// look gathers what is due, what brings most first.
func (s *settler) look() []due {
	v := s.chain.View()
	var out []due
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.receipts() {
		d := due{Receipt: r, Busy: s.busy[tabKey{r.Client, r.Opened}], Fee: s.fee(v, r)}
		d.Tab, _ = v.Tab(r.Client, r.Server)
		if _, p, err := d.Tab.Claim(r, v.Params().ClaimBurn); err == nil {
			d.Pays = p
		}
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b due) int { return cmp.Compare(b.Pays.Got, a.Pays.Got) })
	return out
}

// claimOf is the message that claims r.
func claimOf(r credit.Receipt) chain.Msg {
	return chain.Msg{Credit: &credit.Msg{Claim: &credit.Claim{Receipt: r}}}
}

// fee is what a claim of r costs at most.
func (s *settler) fee(v *chain.View, r credit.Receipt) coin.Amount {
	return v.Params().FeeBound(chain.Body{ChainID: v.ChainID(), Sender: s.me, Nonce: 1 << 40, Msg: claimOf(r)})
}

// start sends one claim and returns at once. What does not fit among those under
// way is judged again later.
func (s *settler) start(ctx context.Context, group *errgroup.Group, d due, why string) {
	k := tabKey{d.Receipt.Client, d.Receipt.Opened}
	s.mu.Lock()
	s.busy[k] = true
	s.mu.Unlock()
	if group.TryGo(func() error {
		_, err := s.claim(ctx, d.Receipt)
		log := s.log.With("client", k.client, "grains", d.Receipt.Grains, "why", why)
		switch {
		case err == nil:
			log.Info("receipt claimed", "got", d.Pays.Got, "burnt", d.Pays.Burnt)
		case ctx.Err() == nil:
			log.Warn("claim failed, and is judged again at the next slot", "err", err)
		}
		return nil
	}) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, k)
}

// claim sends a claim and waits for its block.
func (s *settler) claim(ctx context.Context, r credit.Receipt) (chain.TxResult, error) {
	k := tabKey{r.Client, r.Opened}
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	res, err := s.chain.Submit(ctx, claimOf(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, k)
	delete(s.errs, k)
	s.m.claim(err == nil)
	if err != nil {
		s.errs[k] = err.Error()
	}
	return res, err
}

// now claims receipts of a client, of all if none is named, whatever they are
// worth beside their fee: somebody asked for it. It returns what came of each.
func (s *settler) now(ctx context.Context, client peer.ID) ([]ClaimDone, error) {
	out := []ClaimDone{}
	known := false
	for _, d := range s.look() {
		if client != "" && d.Receipt.Client != client {
			continue
		}
		known = true
		if d.Pays.Paid == 0 || d.Busy {
			continue
		}
		c := ClaimDone{Client: d.Receipt.Client, Opened: d.Receipt.Opened, Paid: d.Pays.Paid, Burnt: d.Pays.Burnt, Got: d.Pays.Got}
		res, err := s.claim(ctx, d.Receipt)
		if err != nil {
			return out, fmt.Errorf("claim the receipt of %v: %w", d.Receipt.Client, err)
		}
		c.Hash, c.Height, c.Fee = fmt.Sprintf("%x", res.Hash), res.Height, res.Fee
		out = append(out, c)
	}
	if client != "" && !known {
		return out, notFound("no receipt of %v is kept here: `lode credit receipts` lists those that are", client)
	}
	return out, nil
}

// failures returns why claims failed last, by tab.
func (s *settler) failures() map[tabKey]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[tabKey]string, len(s.errs))
	for k, e := range s.errs {
		out[k] = e
	}
	return out
}
