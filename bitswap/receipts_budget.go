package bitswap

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Budget bounds what a client signs for, whatever its tabs hold.
type Budget struct {
	Period time.Duration // begins at multiples of itself since 1970, UTC; at least a minute
	Most   coin.Amount   // grains in a period, to all servers together; 0 = nothing is paid
	Server coin.Amount   // grains in a period to one server; 0 = no bound of its own
}

func (b Budget) check() error {
	if b.Most > 0 && b.Period < time.Minute {
		return fmt.Errorf("bitswap: a budget for %v: want at least a minute", b.Period)
	}
	return nil
}

// A purse is what was spent of a budget in one period: a value machine.
type purse struct {
	Period int64 // number of the period since 1970
	Spent  coin.Amount
	By     map[peer.ID]coin.Amount // what of it each server got
}

// A purseRecord is a purse on disk.
type purseRecord struct {
	_ struct{} `cbor:",toarray"`

	Period int64
	Spent  coin.Amount
	By     []purseShare // by server
}

// A purseShare is what one server got.
type purseShare struct {
	_ struct{} `cbor:",toarray"`

	Server []byte
	Spent  coin.Amount
}

func (x *purse) record() purseRecord {
	r := purseRecord{Period: x.Period, Spent: x.Spent}
	for p, n := range x.By {
		r.By = append(r.By, purseShare{Server: []byte(p), Spent: n})
	}
	slices.SortFunc(r.By, func(a, b purseShare) int { return bytes.Compare(a.Server, b.Server) })
	return r
}

func (r purseRecord) purse() purse {
	x := purse{Period: r.Period, Spent: r.Spent}
	for _, s := range r.By {
		if x.By == nil {
			x.By = map[peer.ID]coin.Amount{}
		}
		x.By[peer.ID(s.Server)] = s.Spent
	}
	return x
}

// turn begins the period of now, µs since 1970, if it is a later one. A clock set
// back spends no period twice.
func (x *purse) turn(b Budget, now int64) {
	if n := now / max(b.Period.Microseconds(), 1); n > x.Period {
		*x = purse{Period: n}
	}
}

// left returns how many grains may be signed away to a server now.
func (x *purse) left(b Budget, now int64, p peer.ID) coin.Amount {
	x.turn(b, now)
	left := b.Most - min(x.Spent, b.Most)
	if b.Server > 0 {
		left = min(left, b.Server-min(x.By[p], b.Server))
	}
	return left
}

// spend books grains signed away to a server. The caller has asked left.
func (x *purse) spend(p peer.ID, n coin.Amount) {
	if n == 0 {
		return
	}
	if x.By == nil {
		x.By = map[peer.ID]coin.Amount{}
	}
	x.Spent += n
	x.By[p] += n
}

// refills returns when the next period begins, µs since 1970.
func (x *purse) refills(b Budget) int64 {
	us := max(b.Period.Microseconds(), 1)
	if x.Period >= math.MaxInt64/us-1 {
		return math.MaxInt64
	}
	return (x.Period + 1) * us
}

// holds reports whether all that y says is spent is in x too.
func (x *purse) holds(y *purse) bool {
	if x.Period != y.Period || x.Spent < y.Spent {
		return false
	}
	for p, n := range y.By {
		if x.By[p] < n {
			return false
		}
	}
	return true
}

// reserves is into how many parts a budget is cut of which one at a time is
// written down ahead.
const reserves = 64

// ahead returns what is to be written down before x is spent: x, or what was
// written before if that holds it, else x and some more for a server, so that not
// every receipt waits for a disk. A crash loses that part of the budget.
func (x *purse) ahead(b Budget, was purse, p peer.ID) purse {
	if was.holds(x) {
		return was
	}
	y := x.copy()
	more := y.left(b, 0, p)
	y.spend(p, min(more, b.Most/reserves))
	return y
}

// copy returns x as it stands, for whoever writes it down.
func (x *purse) copy() purse {
	y := *x
	y.By = maps.Clone(x.By)
	return y
}
