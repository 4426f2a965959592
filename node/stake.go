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
)

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
