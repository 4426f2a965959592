package chain

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// denTabs count beside the chain what the tabs of a den
// should do: what was put into each, what was paid out of it, what that burns, and what it books.
type denTabs struct {
	all    map[couple]denTab
	said   []credit.Receipt          // signed, by whomever for whomever, the last one last
	last   map[couple]credit.Receipt // of them, under the tab that is open
	lost   coin.Amount               // by the crew to others, or burnt
	booked []denBooking
}

type denTab struct {
	opened          int64
	deposited, paid coin.Amount
}

// A denBooking is credit that a claim booked.
type denBooking struct {
	era    uint64
	amount coin.Amount
}

func (p denTabs) clone() denTabs {
	p.all, p.last, p.said, p.booked = maps.Clone(p.all), maps.Clone(p.last), slices.Clone(p.said), slices.Clone(p.booked)
	if p.all == nil {
		p.all, p.last = map[couple]denTab{}, map[couple]credit.Receipt{}
	}
	return p
}

// tabMoves are what colluders do with tabs: they pay themselves and each other,
// sign more or less than is true, say the same twice, late or by another's hand,
// and close before they pay.
var tabMoves = []moveKind{
	{"fund", func(d *den, m move) error {
		server := d.member(m.b)
		if m.b%7 == 6 {
			server = d.hosts[0]
		}
		return d.fund(d.member(m.a), server, sums[int(m.c)%len(sums)])
	}},
	{"close", func(d *den, m move) error {
		return d.do(d.member(m.a), Msg{Credit: &credit.Msg{Close: &credit.Close{Server: d.member(m.b)}}})
	}},
	{"sign", func(d *den, m move) error { // for no service
		at := couple{d.member(m.a), d.member(m.b)}
		tab, before := d.tabs.all[at], d.tabs.last[at].Grains
		total := []coin.Amount{before + 3, tab.deposited, 2*tab.deposited + 1, 0, before - min(before, 1), before + 1, before + 2_000_001}[m.c%7]
		return d.sign(at, total)
	}},
	{"serve", func(d *den, m move) error { // an honest reader, which pays what it owes
		at := couple{d.user, d.member(m.a)}
		total := d.tabs.last[at].Grains + sums[int(m.c)%len(sums)]%coin.LODE
		if d.tabs.all[at].deposited < total && m.b%2 == 0 {
			if err := d.fund(at.A, at.B, total); err != nil {
				return err
			}
		}
		return d.sign(at, total)
	}},
	{"claim", func(d *den, m move) error {
		if len(d.tabs.said) == 0 {
			return errors.New("nobody signed anything")
		}
		return d.claim(d.member(m.a), d.tabs.said[len(d.tabs.said)-1-int(m.b)%len(d.tabs.said)])
	}},
}

// fund puts money into a tab and counts it.
func (d *den) fund(client, server peer.ID, x coin.Amount) error {
	if err := d.do(client, Msg{Credit: &credit.Msg{Fund: &credit.Fund{Server: server, Amount: x}}}); err != nil {
		return err
	}
	at := couple{client, server}
	tab, opened := d.tabs.all[at], tabTable.must(d.s, at).Opened
	if tab.opened != opened { // the one before was closed, and is gone
		tab = denTab{opened: opened}
		delete(d.tabs.last, at)
	}
	tab.deposited += x
	d.tabs.all[at] = tab
	return nil
}

// sign has a client say what it owes in all under the tab that it opened last.
func (d *den) sign(at couple, total coin.Amount) error {
	r := credit.Receipt{ChainID: d.s.chain.ChainID, Client: at.A, Server: at.B, Opened: d.tabs.all[at].opened, Bytes: d.tabs.last[at].Bytes + 1, Grains: total}
	if r.Opened == 0 {
		return errors.New("there is no tab")
	}
	name := "user"
	if i := slices.Index(d.crew, at.A); i >= 0 {
		name = fmt.Sprint("c", i)
	}
	signed, err := r.Sign(testKey(d.t, name))
	if err != nil {
		return err
	}
	d.tabs.said, d.tabs.last[at] = append(d.tabs.said, signed), signed
	return nil
}

// claim has somebody claim r, and counts what that should move: no more than what
// was signed and put in, and not paid before, less a fifth, rounded up.
func (d *den) claim(who peer.ID, r credit.Receipt) error {
	if err := d.do(who, Msg{Credit: &credit.Msg{Claim: &credit.Claim{Receipt: r}}}); err != nil {
		return err
	}
	at := couple{r.Client, r.Server}
	tab := d.tabs.all[at]
	pay := coin.Amount(0)
	if total := min(r.Grains, tab.deposited); r.Opened == tab.opened && total > tab.paid {
		pay = total - tab.paid
	}
	burn := (pay*coin.Amount(d.s.params.ClaimBurn) + 999_999) / 1_000_000
	tab.paid += pay
	d.tabs.all[at] = tab
	if slices.Contains(d.crew, r.Client) {
		d.tabs.lost += pay
	}
	if slices.Contains(d.crew, r.Server) {
		d.due += pay - burn
	}
	d.tabs.booked = append(d.tabs.booked, denBooking{uint64(d.s.era()), pay - burn})
	return nil
}

// tabsLeft is the crew's money in tabs.
func (d *den) tabsLeft() (sum coin.Amount) {
	tabTable.each(d.s, func(at couple, t credit.Tab) bool {
		if slices.Contains(d.crew, at.A) {
			sum += t.Left()
		}
		return true
	})
	return sum
}

// weighCredit panics if there is more credit than claims booked, each halved as
// often as an era that is a multiple of fourteen has come since.
func (d *den) weighCredit() {
	most, have, era := coin.Amount(len(d.tabs.booked)), coin.Amount(0), uint64(d.s.era())
	for _, b := range d.tabs.booked {
		most += b.amount >> (era/14 - b.era/14)
	}
	credits.each(d.s, func(who peer.ID, _ credit.Earned) bool {
		have += d.s.credit(who)
		return true
	})
	if have > most {
		panic(fmt.Sprintf("there is credit of %v, claims are good for %v", have, most))
	}
}
