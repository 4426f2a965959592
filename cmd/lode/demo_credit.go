package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lode-node/lode/coin"
)

// Money of the demo's tabs. What a holder asks for a GiB makes the claim of a few MiB worth its fee many times.
const (
	demoPrice  = 10 * coin.LODE // for a GiB
	demoTab    = 2 * coin.LODE  // for each of the four holders
	demoPurse  = 4*demoTab + coin.LODE
	demoStaged = coin.LODE // what two who collude move from one to the other
)

// openTabs has the user give the edge money, and the edge open a tab for each holder, before the edge fetches.
func (d *demo) openTabs(ctx context.Context) error {
	if _, err := d.asUser(ctx, "tx", "send", d.edge().ID.String(), demoPurse.String()); err != nil {
		return d.check("the user gives the edge money", err)
	}
	if d.sab == "credit" {
		return nil
	}
	for _, m := range d.storage() {
		if _, err := d.as(ctx, d.edge().Home, "credit", "tab", "open", m.ID.String(), demoTab.String()); err != nil {
			return d.check("the edge opens a tab for each holder", fmt.Errorf("%s: %w", m.Name, err))
		}
	}
	d.say("  ..  the edge has a tab of %v for each of four holders, who ask %v a GiB", demoTab, demoPrice)
	return nil
}

// credit is step 5: what the edge signed for in step 4 becomes money and credit of those who served.
func (d *demo) credit(ctx context.Context) error {
	var best creditAnswer
	err := d.wait(ctx, "a holder has claimed what the edge signed, and its on-chain credit has risen", 60*time.Second, func(ctx context.Context) (string, error) {
		for _, m := range d.storage() {
			var a creditAnswer
			if err := d.client(d.edge()).get(ctx, "/credit/"+m.ID.String(), &a); err != nil {
				return "", err
			}
			if a.Statement.Credit > best.Statement.Credit {
				best = a
			}
		}
		if best.Statement.Credit == 0 {
			return "no claim yet", nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	if err := d.check("its credit is what was paid for its bytes, less what was burnt", d.burnt(best)); err != nil {
		return err
	}
	return d.check("two who pay each other for nothing have less together, by the burn and the fees", d.collude(ctx))
}

// burnt looks whether a credit adds up, and that some of each payment was burnt.
func (d *demo) burnt(a creditAnswer) error {
	var got coin.Amount
	for _, l := range a.Statement.Lines {
		if l.Burnt == 0 || l.Got != l.Paid-l.Burnt || l.Client != d.edge().ID {
			return fmt.Errorf("claim at height %d: %v of %v paid %v, burnt %v, got %v", l.Height, l.Server, l.Client, l.Paid, l.Burnt, l.Got)
		}
		got += l.Got
		d.say("  ..  %s: %v for %s, %v of it burnt", d.name(l.Server), l.Paid, size(l.Bytes), l.Burnt)
	}
	if s := a.Statement; len(s.Lines) == 0 || s.Halvings == 0 && s.Credit != got {
		return fmt.Errorf("the claims brought %v, and the credit is %v", got, s.Credit)
	}
	return nil
}

// collude has the user pay another key of its own for a GiB that nobody sent.
func (d *demo) collude(ctx context.Context) error {
	var friend keyInfo
	if err := d.into(&friend)(d.as(ctx, filepath.Join(d.dir, "friend"), "key", "new", "friend")); err != nil {
		return err
	}
	pair := func() (sum coin.Amount, err error) {
		for _, id := range []string{d.net.User.Account, friend.Account} {
			var a accountAnswer
			if err := d.client(d.edge()).get(ctx, "/accounts/"+id, &a); err != nil && exitCode(err) != exitNotFound {
				return 0, err
			}
			sum += a.Free
		}
		return sum, nil
	}
	before, err := pair()
	if err != nil {
		return err
	}
	var fees coin.Amount
	pay := func(args ...string) error {
		var s sent
		err := d.into(&s)(d.asUser(ctx, args...))
		fees += s.Fee
		return err
	}
	if err := pay("credit", "tab", "open", friend.Account, demoStaged.String()); err != nil {
		return err
	}
	receipt, err := d.asUser(ctx, "credit", "receipt", friend.Account, "--bytes", "1GiB", "--amount", demoStaged.String())
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "receipt.json")
	if err := os.WriteFile(file, receipt, 0o600); err != nil {
		return err
	}
	if err := pay("credit", "claim", file); err != nil {
		return err
	}
	after, err := pair()
	if err != nil {
		return err
	}
	var a creditAnswer
	if err := d.client(d.edge()).get(ctx, "/credit/"+friend.Account, &a); err != nil {
		return err
	}
	if len(a.Statement.Lines) != 1 {
		return fmt.Errorf("%d claims were booked to the friend, want 1", len(a.Statement.Lines))
	}
	if l := a.Statement.Lines[0]; l.Burnt == 0 || before-after != l.Burnt+fees {
		return fmt.Errorf("the two had %v and have %v; %v was burnt, fees were %v", before, after, l.Burnt, fees)
	}
	d.say("  ..  the two moved %v between them: %v burnt and %v of fees are gone, for a credit of %v", demoStaged, a.Statement.Lines[0].Burnt, fees, a.Statement.Credit)
	return nil
}

// asUser runs one of this program's commands in the user's home, as if the user had typed it, and returns its JSON.
func (d *demo) asUser(ctx context.Context, args ...string) ([]byte, error) {
	return d.as(ctx, d.net.Home, args...)
}

func (d *demo) as(ctx context.Context, home string, args ...string) ([]byte, error) {
	return d.lode(ctx, append(args, "--json", "--home", home, "--node", d.edge().Socket)...)
}

// into returns a function that reads a command's answer into v.
func (d *demo) into(v any) func([]byte, error) error {
	return func(out []byte, err error) error {
		if err != nil {
			return err
		}
		return json.Unmarshal(out, v)
	}
}
