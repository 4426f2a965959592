package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

func (c *cli) govCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "gov", Short: "propose and vote: params, upgrades, which enclaves may register"})
	cmd.AddCommand(c.proposeCmd(), c.voteCmd(),
		c.accountHistoryCmd("what an account proposed and voted, and what became of its proposals, the newest first", "proposed,voted,passed,enacted,failed,rejected,vetoed"),
		&cobra.Command{Use: "list", Short: "list proposals under vote and decided ones", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(c, cmd, "/gov/proposals", func(w io.Writer, a proposalsAnswer) {
				var t table
				t.row("ID", "STATE", "TITLE", "YES", "NO", "VETO", "OF", "CLOSES", "TAKES EFFECT")
				for _, p := range a.Proposals {
					w := func(n uint64) string { return weight(p, n) }
					t.row(p.ID, p.State, p.Title(), w(p.Tally.Yes), w(p.Tally.No), w(p.Tally.Veto), w(p.Tally.Total), p.Closes, effect(p))
				}
				t.print(w)
			})
		}},
		&cobra.Command{Use: "show PROPOSAL", Short: "show one proposal, what it asks for and who voted", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseProposal(args[0])
			if err != nil {
				return err
			}
			return ask(c, cmd, fmt.Sprint("/gov/proposals/", id), printProposal)
		}},
		&cobra.Command{Use: "params [PREFIX]", Short: "list the params that a proposal can name, with their values", Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			return ask(c, cmd, "/gov/params", func(w io.Writer, a namedParamsAnswer) {
				var t table
				t.row("PARAM", "VALUE", "")
				for _, p := range a.Params {
					if len(args) == 1 && !strings.HasPrefix(p.Name, args[0]) {
						continue
					}
					note := ""
					if p.Fixed {
						note = "never changes"
					}
					t.row(p.Name, p.Value, note)
				}
				t.print(w)
			})
		}},
		&cobra.Command{Use: "protocol", Short: "show the protocol version, the upgrade that is planned, when, and what it means for the node", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(c, cmd, "/gov/protocol", printProtocol)
		}},
		&cobra.Command{Use: "enclaves", Short: "show which enclaves may register, and what is denied", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(c, cmd, "/gov/enclaves", printEnclaves)
		}},
	)
	return cmd
}

func parseProposal(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usage("proposal %q: want its number; `lode gov list` shows them", s)
	}
	return id, nil
}

func (c *cli) voteCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{
		Use: "vote PROPOSAL yes|no|veto|abstain", Short: "say what you think of a proposal",
		Long: `Vote with the stake that counted when the proposal opened: a validator with its own and its guarantors', a guarantor with
what it guaranteed, which then leaves its validators' votes. You may vote again until it closes. A third of vetoes burns the deposit.`,
		Args: nargs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseProposal(args[0])
			if err != nil {
				return err
			}
			switch choice := chain.Choice(args[1]); choice {
			case chain.Yes, chain.No, chain.Veto, chain.Abstain:
				return c.transact(cmd, f, chain.Msg{Gov: &chain.Gov{Vote: &chain.Vote{Proposal: id, Choice: choice}}}, "voted %s on proposal %d", choice, id)
			}
			return usage("vote %q: want yes, no, veto or abstain", args[1])
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) proposeCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "propose", Short: "ask those with stake for a change; holds a deposit until it is decided"})
	add := func(use, text string, lo, hi int, build func(args []string) (chain.Propose, error)) *cobra.Command {
		var f txFlags
		var title string
		sub := &cobra.Command{Use: use, Short: text, Args: nargs(lo, hi), RunE: func(cmd *cobra.Command, args []string) error {
			m, err := build(args)
			if err != nil {
				return err
			}
			if m.Title = title; title == "" {
				m.Title = strings.Join(append([]string{cmd.Name()}, args...), " ")
			}
			return c.transact(cmd, f, chain.Msg{Gov: &chain.Gov{Propose: &m}}, "proposed: %s; `lode gov list` has its number", m.Title)
		}}
		f.add(sub)
		sub.Flags().StringVar(&title, "title", "", "what and why, in a line, for those who vote (default: the command)")
		cmd.AddCommand(sub)
		return sub
	}
	add("params NAME=VALUE...", "other values for params, all or none; `lode gov params` lists them", 1, chain.MaxParamChanges, proposeParams)
	add("upgrade NAME VERSION HEIGHT", "from HEIGHT on the rules of protocol version VERSION, which release NAME knows", 3, 3, func(args []string) (chain.Propose, error) {
		version, err1 := strconv.ParseUint(args[1], 10, 64)
		height, err2 := strconv.ParseInt(args[2], 10, 64)
		if err1 != nil || err2 != nil {
			return chain.Propose{}, usage("upgrade %v: want a name, a version and a height", args)
		}
		return chain.Propose{Upgrade: &chain.Upgrade{Name: args[0], Version: version, Height: height}}, nil
	})
	add("cancel-upgrade", "take back the upgrade that is planned", 0, 0, func([]string) (chain.Propose, error) { return chain.Propose{CancelUpgrade: true}, nil })
	var svn uint16
	var expiry int64
	m := add("measurement MRENCLAVE", "let a build of the enclave register, or give it other bounds", 1, 1, func(args []string) (chain.Propose, error) {
		b := mpow.Measurement{MinSVN: svn, Expiry: expiry}
		if err := readHex(args[0], b.MRENCLAVE[:]); err != nil {
			return chain.Propose{}, err
		}
		return chain.Propose{Enclaves: &mpow.Amendment{Measurement: &b}}, nil
	})
	m.Flags().Uint16Var(&svn, "min-svn", 0, "least security version number")
	m.Flags().Int64Var(&expiry, "expiry", 0, "height from which it can neither register nor report (default: never)")
	add("policy FILE", "another TCB policy, in JSON as `lode gov enclaves --json` shows it", 1, 1, func(args []string) (chain.Propose, error) {
		raw, err := os.ReadFile(args[0])
		if err != nil {
			return chain.Propose{}, err
		}
		var p mpow.Policy
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields() // a word misspelt would be a list left empty
		if err := d.Decode(&p); err != nil {
			return chain.Propose{}, usage("policy %s: %v: want what stands under \"policy\" in `lode gov enclaves --json`", args[0], err)
		}
		if _, err := d.Token(); err != io.EOF {
			return chain.Propose{}, usage("policy %s: there is more behind the policy", args[0])
		}
		return chain.Propose{Enclaves: &mpow.Amendment{Policy: &p}}, nil
	})
	denial := func(use, text string, wrap func(d *mpow.Denial) chain.Propose) {
		add(use+" measurement|cpu|fmspc HEX", text, 2, 2, func(args []string) (chain.Propose, error) {
			d, err := parseDenial(args[0], args[1])
			return wrap(d), err
		})
	}
	denial("deny", "bar enclaves for good", func(d *mpow.Denial) chain.Propose { return chain.Propose{Enclaves: &mpow.Amendment{Deny: d}} })
	denial("allow", "take a denial back", func(d *mpow.Denial) chain.Propose { return chain.Propose{Enclaves: &mpow.Amendment{Allow: d}} })
	denial("emergency", "bar enclaves at once and for a while, by half of the validators' power", func(d *mpow.Denial) chain.Propose { return chain.Propose{Emergency: d} })
	return cmd
}

// proposeParams reads "fees.byte=200".
func proposeParams(args []string) (m chain.Propose, err error) {
	for _, s := range args {
		name, text, ok := strings.Cut(s, "=")
		value, err := strconv.ParseUint(text, 10, 64)
		switch {
		case ok && (text == "true" || text == "false"):
			if text == "true" {
				value = 1
			}
		case !ok || err != nil:
			return m, usage("%q: want NAME=VALUE with a whole number, in grains, bytes, blocks or slots as `lode gov params` shows it", s)
		}
		m.Params = append(m.Params, chain.ParamChange{Name: name, Value: value})
	}
	return m, nil
}

func readHex(s string, into []byte) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(into) {
		return usage("%q: want %d hexadecimal digits", s, 2*len(into))
	}
	copy(into, b)
	return nil
}

func parseDenial(kind, value string) (*mpow.Denial, error) {
	var h mpow.Hash
	var f mpow.FMSPC
	switch kind {
	case "measurement":
		return &mpow.Denial{Measurement: &h}, readHex(value, h[:])
	case "cpu":
		return &mpow.Denial{CPU: &h}, readHex(value, h[:])
	case "fmspc":
		return &mpow.Denial{FMSPC: &f}, readHex(value, f[:])
	}
	return nil, usage("%q: want measurement, cpu or fmspc", kind)
}

// weight is n of what weighs votes on p: stake, and for an emergency units of voting power.
func weight(p chain.Proposal, n uint64) string {
	if p.Asks.Emergency != nil {
		return fmt.Sprintf("%d power", n)
	}
	return coin.Amount(n).String()
}

// effect says when p takes or took effect, nothing if it never will.
func effect(p chain.Proposal) string {
	switch {
	case p.State == chain.StateOpen && p.Asks.Emergency != nil:
		return "once it is won"
	case p.State == chain.StateOpen, p.State == chain.StatePassed:
		return fmt.Sprintf("height %d", p.Enacts)
	case p.State == chain.StateEnacted:
		return p.Why
	}
	return ""
}

func printProposal(w io.Writer, a proposalAnswer) {
	p, t := a.Proposal, a.Proposal.Tally
	fields(w, "proposal", p.ID, "title", p.Title(), "state", p.State, "because", p.Why, "by", p.Proposer, "deposit", p.Deposit,
		"opened at height", p.Opened, "closes at", p.Closes, "takes effect at", effect(p),
		"yes", weight(p, t.Yes), "no", weight(p, t.No), "veto", weight(p, t.Veto), "abstain", weight(p, t.Abstain), "of all", weight(p, t.Total))
	asks, _ := json.Marshal(p.Asks) // plain values: it cannot fail
	fmt.Fprintf(w, "asks for  %s\n", asks)
	if len(a.Votes) > 0 {
		var t table
		t.row("VOTE", "ACCOUNT", "WEIGHT")
		for _, v := range a.Votes {
			t.row(v.Choice, v.Account, weight(p, v.Weight))
		}
		t.print(w)
	}
}

func printEnclaves(w io.Writer, a enclavesAnswer) {
	fields(w, "accepted statuses", strings.Join(a.Policy.Statuses, ", "), "open advisories", strings.Join(a.Policy.Advisories, ", "),
		"least evaluation", a.Policy.MinEvaluation, "SGX types", strings.Join(a.Policy.SGXTypes, ", "))
	var t table
	t.row("ENCLAVE OR DENIAL", "BOUNDS")
	for _, m := range a.Measurements {
		t.row("measurement "+m.MRENCLAVE.String(), fmt.Sprintf("SVN %d, expiry %d", m.MinSVN, m.Expiry))
	}
	for _, d := range a.Denials {
		until := "denied for good"
		if d.Until != 0 {
			until = fmt.Sprintf("denied until height %d", d.Until)
		}
		t.row(d.Denial.String(), until)
	}
	t.print(w)
}
