package main

import (
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

func (c *cli) groupCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "group", Short: "gather nodes under an owner, who is credited and paid for them"})
	cmd.AddCommand(
		&cobra.Command{Use: "show [OWNER]", Short: "show the nodes of an owner (default: of the signing key)", Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := c.nodesOf(args, txFlags{})
			if err != nil {
				return err
			}
			return ask(c, cmd, "/groups/"+ids[0].String(), func(w io.Writer, a groupAnswer) {
				fields(w, "owner", a.Group.Owner, "workload", size(a.Workload), "nodes", len(a.Group.Members), "allowed", len(a.Group.Allowed))
				for _, id := range a.Group.Members {
					fmt.Fprintln(w, "node", id)
				}
				for _, id := range a.Group.Allowed {
					fmt.Fprintln(w, "may join", id)
				}
			})
		}},
		c.groupVerbCmd(mpow.GroupAllow, "NODE", "let a node join the signer's group"),
		c.groupVerbCmd(mpow.GroupDeny, "NODE", "take that back, while the node has not joined"),
		c.groupVerbCmd(mpow.GroupJoin, "OWNER", "put the signing node into a group that allows it"),
		c.groupVerbCmd(mpow.GroupLeave, "", "take the signing node out of its group"),
		c.groupVerbCmd(mpow.GroupRemove, "NODE", "put a node out of the signer's group"),
	)
	return cmd
}

// groupVerbCmd is a command that sends one message of a group.
func (c *cli) groupVerbCmd(verb mpow.GroupVerb, arg, text string) *cobra.Command {
	var f txFlags
	n := 0
	if arg != "" {
		n = 1
	}
	cmd := &cobra.Command{Use: string(verb) + map[bool]string{true: " " + arg}[arg != ""], Short: text, Args: nargs(n, n), RunE: func(cmd *cobra.Command, args []string) error {
		m := mpow.Group{Verb: verb}
		who := peer.ID("")
		if n == 1 {
			var err error
			if who, err = parseAccount("account", args[0]); err != nil {
				return err
			}
			m.Account = mpow.Account(who)
		}
		return c.transact(cmd, f, chain.Msg{Work: &mpow.Msg{Group: &m}}, "group %s: done%s", verb, map[bool]string{true: fmt.Sprintf(", %v", who)}[n == 1])
	}}
	f.add(cmd)
	return cmd
}
