package node

import (
	"net/http"

	"github.com/lode-node/lode/chain"
)

type (
	// StakeAnswer is GET stake/{id}. An account that never bonded has nothing.
	StakeAnswer struct {
		Height int64       `json:"height"`
		Stake  chain.Stake `json:"stake"`
	}
	// ValidatorsAnswer is GET validators: the set and all candidates, the largest
	// power first.
	ValidatorsAnswer struct {
		Height     int64             `json:"height"`
		Era        chain.Era         `json:"era"`
		Validators []chain.Validator `json:"validators"`
	}
	// EraAnswer is GET era.
	EraAnswer struct {
		Height int64     `json:"height"`
		Era    chain.Era `json:"era"`
	}
	// LimitAnswer is GET limit?bytes=[&account=]: what a workload would let count.
	LimitAnswer struct {
		Height int64 `json:"height"`
		chain.StakeLimit
	}
	// PayoutsAnswer is GET stake/{id}/payouts: the newest first.
	PayoutsAnswer struct {
		Height  int64          `json:"height"`
		Payouts []chain.Payout `json:"payouts"`
	}
)

func (n *Node) getEra(*http.Request) (any, error) {
	v := n.chain.View()
	return EraAnswer{Height: v.Height(), Era: v.Era()}, nil
}

func (n *Node) getLimit(r *http.Request) (any, error) {
	bytes, err := queryNumber(r, "bytes")
	if err != nil {
		return nil, err
	}
	id, err := queryAccount(r, "account")
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	return LimitAnswer{Height: v.Height(), StakeLimit: v.LimitFor(id, bytes)}, nil
}

func (n *Node) getPayouts(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	return PayoutsAnswer{Height: v.Height(), Payouts: v.Payouts(id)}, nil
}

func (n *Node) getStake(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	return StakeAnswer{Height: v.Height(), Stake: v.Stake(id)}, nil
}

func (n *Node) getValidators(*http.Request) (any, error) {
	v := n.chain.View()
	return ValidatorsAnswer{Height: v.Height(), Era: v.Era(), Validators: v.Validators()}, nil
}
