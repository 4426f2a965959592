package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/credit"
)

// readReceipt reads a receipt in JSON from a file, or from stdin if it is "-". Its
// signature is not looked at.
func readReceipt(cmd *cobra.Command, name string) (r credit.Receipt, err error) {
	raw, err := readFileOrStdin(cmd, name)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, usage("receipt %s: %v", name, err)
	}
	return r, nil
}

// A receiptVerdict is what `lode credit receipt verify` prints.
type receiptVerdict struct {
	Receipt credit.Receipt  `json:"receipt"`
	Valid   bool            `json:"valid"`          // the client signed it, and it follows the earlier one and fits the tab, where they were given
	Why     string          `json:"why"`            // not valid, or what it is worth
	Pays    *credit.Payment `json:"pays,omitempty"` // what a claim would move, by the tab that was given
}

// errInvalid is returned for a receipt that is not valid, once that was said.
var errInvalid = errors.New("the receipt is not valid")

func (c *cli) receiptVerifyCmd() *cobra.Command {
	var after, tabFile, class string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "check a receipt in JSON without a node; - reads it from stdin",
		Long: `Says whether the client signed it and every field is in its range. With --after, whether it follows an earlier one of the same tab: totals
that fell are a fork. With --tab, what a claim of it would pay out of that tab, and what of that is burnt. No node is asked: whether the
tab is as the file says is for 'lode credit show' and its proof. It fails if the receipt is not valid.`,
		Args: nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := readReceipt(cmd, args[0])
			if err != nil {
				return err
			}
			var last *credit.Receipt
			if after != "" {
				x, err := readReceipt(cmd, after)
				if err != nil {
					return err
				}
				last = &x
			}
			var tab *credit.Tab
			if tabFile != "" {
				raw, err := readFileOrStdin(cmd, tabFile)
				if err != nil {
					return err
				}
				tab = new(credit.Tab)
				if err := json.Unmarshal(raw, tab); err != nil {
					return usage("tab %s: %v", tabFile, err)
				}
			}
			p, err := chain.Preset(class)
			if err != nil {
				return usage("--class %s: %v", class, err)
			}
			v := judgeReceipt(r, last, tab, p.ClaimBurn)
			if err := c.show(v, func(w io.Writer) { printVerdict(w, v) }); err != nil {
				return err
			}
			if !v.Valid {
				return fmt.Errorf("receipt %s: %w", args[0], errInvalid)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "an earlier receipt that it is to follow, in JSON")
	cmd.Flags().StringVar(&tabFile, "tab", "", "the tab, in JSON, as `lode credit show --json` has it")
	cmd.Flags().StringVar(&class, "class", chain.ClassMain, "class of the chain: says what part of a claim is burnt")
	return cmd
}

// judgeReceipt says whether r is valid and, if there is a tab, what a claim of it
// moves at a burn in ppm. Nil: there is no earlier one, or no tab.
func judgeReceipt(r credit.Receipt, last *credit.Receipt, tab *credit.Tab, burn uint64) receiptVerdict {
	v := receiptVerdict{Receipt: r}
	err := r.Verify()
	if err == nil && last != nil {
		if err = last.Verify(); err != nil {
			err = fmt.Errorf("the earlier one: %w", err)
		} else {
			err = r.Follows(*last)
		}
	}
	if err != nil {
		v.Why = err.Error()
		return v
	}
	v.Valid, v.Why = true, "its client signed it"
	if tab == nil {
		return v
	}
	_, p, err := tab.Claim(r, burn)
	switch {
	case errors.Is(err, credit.ErrNothing):
		v.Why += "; " + err.Error()
	case err != nil:
		v.Valid, v.Why = false, err.Error()
	default:
		v.Pays = &p
		if more := r.Grains - min(r.Grains, tab.Deposited); more > 0 {
			v.Why += fmt.Sprintf("; %v of it are more than the tab ever had", more)
		}
	}
	return v
}

func printVerdict(w io.Writer, v receiptVerdict) {
	word := "valid"
	if !v.Valid {
		word = "NOT VALID"
	}
	fields(w, "verdict", word, "why", v.Why, "client", v.Receipt.Client, "server", v.Receipt.Server, "chain", v.Receipt.ChainID, "tab of height", v.Receipt.Opened,
		"for, in all", size(v.Receipt.Bytes), "owes, in all", v.Receipt.Grains)
	if v.Pays != nil {
		fields(w, "a claim pays", v.Pays.Paid, "of it burnt", v.Pays.Burnt, "to the server", v.Pays.Got)
	}
}
