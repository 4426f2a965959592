package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/node"
)

// unjail sends the message that brings m back among the candidates, once it is jailed and its jail allows that. A node
// that stood still while others made blocks may have been jailed for it, and comes back only when its owner says so. It
// returns what it waits for, or has done, in words; nothing for a node that is not jailed.
func (d *demo) unjail(ctx context.Context, m member) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, blockTime)
	defer cancel()
	cl := d.client(d.edge())
	var st stakeAnswer
	if err := cl.get(ctx, "/stake/"+m.ID.String(), &st); err != nil {
		return "", err
	}
	until := st.Stake.Ledger.JailedUntil
	if !st.Stake.Ledger.Jailed() {
		return "", nil
	}
	var now statusAnswer
	if err := cl.get(ctx, "/status", &now); err != nil {
		return "", err
	}
	command := fmt.Sprintf("%s stake unjail --home %s --node %s", os.Args[0], m.Home, d.edge().Socket)
	if now.Era < until {
		return fmt.Sprintf("%s was jailed while it stood still; from era %d on this brings it back, and is done then: %s", m.Name, until, command), nil
	}
	key, err := node.LoadKey(filepath.Join(m.Home, "key"))
	if err == nil {
		_, err = cl.submit(ctx, key, pay{}, chain.Msg{Stake: &gpos.Msg{Unjail: &gpos.Unjail{}}})
	}
	if err != nil {
		return "", fmt.Errorf("%s stays jailed: %w; try: %s", m.Name, err, command)
	}
	return fmt.Sprintf("%s is let out of jail, and stands at the next election", m.Name), nil
}
