package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/node"
)

func (c *cli) proverCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "prover", Short: "the enclave of a storage node: what it is, what it holds, and how it hands over"})
	cmd.AddCommand(c.proverStatusCmd(), c.proverFilesCmd(), c.proverVerifyCmd(), c.proverSRDCmd(), c.proverUpgradeCmd(), c.proverAbandonCmd(), c.proverReleaseCmd())
	return cmd
}

func (c *cli) proverStatusCmd() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "what the prover is and holds, and what the chain knows of it", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/prover", printProver)
	}}
}

// proofs says in words what stands behind a prover's word.
func proofs(p mpow.ProverInfo) string {
	if p.Kind == mpow.KindSimulated {
		return "SIMULATED (" + p.Mode + "): they prove nothing"
	}
	return "by hardware (" + p.Mode + ")"
}

func printProver(w io.Writer, a proverAnswer) {
	p := a.Prover
	registered := "no: the next block registers it"
	if a.Registered {
		registered = fmt.Sprintf("yes, to be renewed by slot %d, lapsed after %d", a.AttestedUntil, a.Graced)
	}
	last, handing := "", ""
	if a.Last != nil && a.Last.Error != "" {
		last = fmt.Sprintf("slot %d: %s", a.Last.Slot, a.Last.Error)
	}
	if p.Handing != "" {
		handing = map[string]string{"giving": "handing over", "gave": "HANDED OVER: it signs nothing more", "took": "took over, and the chain has no report of it yet"}[p.Handing]
	}
	fields(w, "proofs", proofs(p), "platform", p.Platform, "measurement", p.Measurement, "key", hex.EncodeToString(p.Key), "account", p.Account, "chain", p.ChainID,
		"registered", registered, "slot", a.Slot, "last report on chain", a.LastSlot, "missed slots", a.Misses, "draws not answered", a.Faults,
		"last report failed", last, "files", fmt.Sprintf("%d, %s", p.Files, size(p.FileBytes)), "under construction", p.Pending,
		"random data", fmt.Sprintf("%s of %d", word(p.Units, "unit", "units"), a.Wanted), "on chain", fmt.Sprintf("files %s, random data %s", size(a.FileBytes), size(a.SRDBytes)),
		"lost since its start", p.Lost, "hand-over", handing)
	if u := a.Upgrade; u != nil {
		fields(w, "last hand-over asked for", fmt.Sprintf("to %s: %s %s", u.Socket, u.State, u.Error))
	}
	var t table
	t.row("DISK", "FILES", "UNITS", "FREE", "DIRECTORY")
	for _, d := range p.Disks {
		t.row(d.ID[:8], d.Files, d.Units, size(d.Free), d.Dir)
	}
	t.print(w)
	for _, d := range p.Disks {
		if p.Mode == "sim" && d.Free < node.DiskReserve {
			fmt.Fprintf(w, "%s has less than %s free: no file is taken and no random data are made, so nothing more may be staked; free space, or add a disk (`lode doctor prover`)\n", d.Dir, size(node.DiskReserve))
		}
	}
}

func (c *cli) proverFilesCmd() *cobra.Command {
	return &cobra.Command{Use: "files", Short: "the files that the prover holds, and what the chain says of each", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/prover/files", func(w io.Writer, a proverFilesAnswer) {
			var t table
			t.row("ROOT", "SIZE", "ORDER", "REPLICA ON CHAIN")
			for _, f := range a.Files {
				t.row(f.Root, size(f.Size), f.Order, f.Listed)
			}
			for _, r := range a.Pending {
				t.row(r, "", "", "under construction")
			}
			t.print(w)
		})
	}}
}

func (c *cli) proverVerifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify [CID]", Short: "read and open every block of a file, or of all files and all random data",
		Long: "A report checks a sample; this reads all. What is damaged is given up at once, and the next report says so. Ends with code 1 if anything was.",
		Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			var roots []string
			if len(args) == 1 {
				r, err := parseRoot(args[0])
				if err != nil {
					return err
				}
				roots = []string{r.String()}
			} else {
				var a proverFilesAnswer
				if err := cl.get(cmd.Context(), "/prover/files", &a); err != nil {
					return err
				}
				for _, f := range a.Files {
					roots = append(roots, f.Root.String())
				}
				roots = append(roots, "")
			}
			list, damaged := []node.VerifiedAnswer{}, uint64(0)
			for _, r := range roots {
				var v node.VerifiedAnswer
				if err := cl.post(cmd.Context(), "/prover/verify?cid="+url.QueryEscape(r), "application/json", nil, &v); err != nil {
					return err
				}
				list, damaged = append(list, v), damaged+v.Damaged
			}
			err = c.show(map[string]any{"verified": list, "damaged": damaged}, func(w io.Writer) {
				var t table
				t.row("WHAT", "WHOLE", "BYTES", "DAMAGED", "FIRST DAMAGE")
				for _, v := range list {
					what, unit := v.Root, "blocks"
					if what == "" {
						what, unit = "random data", "units"
					}
					t.row(what, fmt.Sprintf("%d %s", v.Pieces, unit), size(v.Bytes), v.Damaged, v.First)
				}
				t.print(w)
			})
			if err == nil && damaged > 0 {
				err = fmt.Errorf("%d pieces are damaged and given up: look after the disk", damaged)
			}
			return err
		},
	}
}

func (c *cli) proverSRDCmd() *cobra.Command {
	return &cobra.Command{
		Use: "srd [UNITS]", Short: "sealed random data: how much there is, or how much there is to be until the node ends",
		Long: "Random data make free space provable, and give way to files. With UNITS the keeper makes or frees units until there are so many, as far as the\ndisk and keeper.capacity let it; to keep that over a restart set keeper.srd_units.",
		Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return ask(c, cmd, "/prover", func(w io.Writer, a proverAnswer) {
					fields(w, "units", a.Prover.Units, "bytes", size(a.Prover.SRDBytes), "wanted", a.Wanted, "on chain", size(a.SRDBytes))
				})
			}
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 0 {
				return usage("units %q: want a number, zero or more", args[0])
			}
			body, err := json.Marshal(map[string]int{"units": n})
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			var a node.SRDAnswer
			if err := cl.post(cmd.Context(), "/prover/srd", "application/json", body, &a); err != nil {
				return err
			}
			return c.show(a, func(w io.Writer) {
				fmt.Fprintf(w, "the keeper keeps %s of %s from the next block on, where there is room\n", word(a.Units, "unit", "units"), size(a.UnitBytes))
			})
		},
	}
}

func (c *cli) proverUpgradeCmd() *cobra.Command {
	var release string
	cmd := &cobra.Command{
		Use: "upgrade SOCKET --release FILE", Short: "let the prover hand all it holds over to another build, in the next slot",
		Long: `The other prover runs on the same machine, was started with --take for each directory of this one, and answers on SOCKET. FILE says
that the one build may follow the other, signed by keys that both know ('lode prover release'). The keys of all sealed files go from one enclave to
the other; not a byte is sealed anew. It replaces the report of the next slot; 'lode prover status' shows what became of it.`,
		Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			if release == "" {
				return usage("prover upgrade: --release FILE is missing: who says that this build may follow")
			}
			socket, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			r, err := readRelease(release)
			if err != nil {
				return err
			}
			body, err := json.Marshal(map[string]any{"socket": socket, "release": r})
			if err != nil {
				return err
			}
			return c.askUpgrade(cmd.Context(), "/prover/upgrade", body, "the prover hands over to the one at "+socket+" in the next slot; see `lode prover status`")
		},
	}
	cmd.Flags().StringVar(&release, "release", "", "file that says which build may follow which, with signatures")
	return cmd
}

func (c *cli) proverAbandonCmd() *cobra.Command {
	return &cobra.Command{
		Use: "abandon", Short: "call a hand-over off, as long as the old prover has not signed over", Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.askUpgrade(cmd.Context(), "/prover/abandon", nil, "the hand-over is off; both provers are as before")
		},
	}
}

func (c *cli) askUpgrade(ctx context.Context, path string, body []byte, done string) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	var a node.Upgrade
	if err := cl.post(ctx, path, "application/json", body, &a); err != nil {
		return err
	}
	return c.show(a, func(w io.Writer) { fmt.Fprintln(w, done) })
}

// readRelease reads a file that 'lode prover release' wrote.
func readRelease(path string) (r mpow.Release, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, usage("release %s: %v", path, err)
	}
	return r, nil
}

func (c *cli) proverReleaseCmd() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "release FROM TO FILE", Short: "sign that one build of the prover may take over from another, and write or complete FILE",
		Long: `FROM and TO are MRENCLAVE values ('make enclave-id'); simulated provers show theirs as "build" in 'lode prover status --json'. A build knows the keys
whose word it takes, and how many: RELEASE_KEYS of 'make enclave'. Each holder of one runs this on the same FILE, which gathers the signatures.`,
		Args: nargs(3, 3), RunE: func(_ *cobra.Command, args []string) error {
			var r mpow.Release
			for i, h := range []*mpow.Hash{&r.From, &r.To} {
				if err := h.UnmarshalText([]byte(args[i])); err != nil {
					return usage("%v", err)
				}
			}
			old, err := readRelease(args[2])
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return err
			case old.From != r.From || old.To != r.To:
				return usage("%s is of other builds: from %v to %v", args[2], old.From, old.To)
			default:
				r.Sigs = old.Sigs
			}
			home, err := c.homeDir()
			if err != nil {
				return err
			}
			k, err := node.LoadKey(filepath.Join(home, "keys", key))
			if err != nil {
				return err
			}
			pub, err := k.GetPublic().Raw()
			if err != nil {
				return err
			}
			sig, err := k.Sign(mpow.ReleaseBytes(r.From, r.To))
			if err != nil {
				return err
			}
			for _, s := range r.Sigs {
				if string(s.Key) == string(pub) {
					return usage("%s has a signature of this key already", args[2])
				}
			}
			r.Sigs = append(r.Sigs, mpow.ReleaseSig{Key: pub, Sig: sig})
			b, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				return err
			}
			if err := os.WriteFile(args[2], append(b, '\n'), 0o644); err != nil {
				return err
			}
			return c.show(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s has %s; the last is of key %x\n", args[2], word(len(r.Sigs), "signature", "signatures"), pub)
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "user", "name of the key that signs, of 'lode key list'")
	return cmd
}

// A finding is one line of a doctor.
type finding struct {
	What   string `json:"what"`
	State  string `json:"state"` // ok, note or FAIL
	Word   string `json:"word"`
	Remedy string `json:"remedy,omitempty"`
}

func (c *cli) doctorCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "doctor", Short: "look for what is wrong, and say what to do about it"})
	cmd.AddCommand(c.doctorProverCmd())
	return cmd
}

func (c *cli) doctorProverCmd() *cobra.Command {
	return &cobra.Command{
		Use: "prover", Short: "is the prover of this node one that the chain pays?",
		Long: "Goes through what has to hold for a storage node to earn: each line is ok, a note, or FAIL with a remedy. Ends with code 1 if one fails.",
		Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := c.within(cmd.Context(), askTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			var a proverAnswer
			if err := cl.get(ctx, "/prover", &a); err != nil {
				return err
			}
			var col collateralAnswer
			if err := cl.get(ctx, "/collateral", &col); err != nil {
				return err
			}
			list := examineProver(a, col)
			failed := 0
			for _, f := range list {
				if f.State == "FAIL" {
					failed++
				}
			}
			err = c.show(map[string]any{"findings": list, "failed": failed}, func(w io.Writer) {
				var t table
				for _, f := range list {
					t.row(f.State, f.What, f.Word)
					if f.Remedy != "" {
						t.row("", "", "→ "+f.Remedy)
					}
				}
				t.print(w)
			})
			if err == nil && failed > 0 {
				err = fmt.Errorf("%s failed", word(failed, "check", "checks"))
			}
			return err
		},
	}
}

// lowDisk is so little free space that a disk is worth a word, in bytes.
const lowDisk = 2 << 30

// examineProver says of each thing that has to hold whether it does.
func examineProver(a proverAnswer, col collateralAnswer) []finding {
	var out []finding
	p := a.Prover
	say := func(what string, ok bool, good, bad, remedy string) {
		f := finding{what, "ok", good, ""}
		if !ok {
			f = finding{what, "FAIL", bad, remedy}
		}
		out = append(out, f)
	}
	note := func(what, word, remedy string) { out = append(out, finding{what, "note", word, remedy}) }
	if p.Kind == mpow.KindSimulated {
		note("platform", "SIMULATED ("+p.Mode+"): proofs prove nothing, and only devnets take them", "on hardware: docs/enclave.md")
	} else {
		say("platform", p.Mode == "sgx", "SGX", "mode "+p.Mode, "docs/enclave.md")
	}
	say("bound to this node", p.Account == "" || p.Account.String() == a.Node && p.ChainID == a.Chain, "account and chain are this node's",
		fmt.Sprintf("it belongs to account %v on chain %s", p.Account, p.ChainID), "name this node's own prover in prover.socket")
	say("registered", a.Registered, "the chain has its key", "the chain has another key, or none, for this node", "wait for a block; then see last_report in `lode prover status`, and `lode gov enclaves`")
	if a.Registered {
		say("registration lasts", a.Slot < a.Graced, fmt.Sprintf("slot %d of %d, lapsed after %d", a.Slot, a.AttestedUntil, a.Graced), "it has lapsed", "see why the renewal fails in the node's log")
		if a.Slot >= a.AttestedUntil && a.Slot < a.Graced {
			note("renewal", "overdue: reports are taken within the grace only", "see why the renewal fails in the node's log; fresher collateral may be missing: `lode collateral show`")
		}
	}
	why := ""
	if a.Last != nil {
		why = a.Last.Error
	}
	say("reports", a.Slot <= 1 || a.LastSlot+1 >= a.Slot, fmt.Sprintf("the last is of slot %d, now is %d", a.LastSlot, a.Slot),
		fmt.Sprintf("the last on chain is of slot %d, now is %d: %s", a.LastSlot, a.Slot, why), "if the head is unknown: end other copies of this prover, then `lode node recover`")
	switch p.Handing {
	case "gave":
		say("hand-over", false, "", "this prover has handed over and signs nothing more", "name the new one in prover.socket")
	case "":
	default:
		note("hand-over", "one is under way ("+p.Handing+"): nothing changes meanwhile", "`lode prover abandon` calls it off")
	}
	say("files whole", p.Lost == 0, "none was found damaged since it started", fmt.Sprintf("%d were found damaged since it started", p.Lost), "look after the disk; `lode prover verify` reads everything")
	for _, d := range p.Disks {
		if p.Mode == "sim" && d.Free < node.DiskReserve { // within an enclave what it sees of a disk is worth nothing
			say("disk "+d.ID[:min(8, len(d.ID))], false, "", fmt.Sprintf("%s free in %s: with less than %s no file is taken and no random data are made", size(d.Free), d.Dir, size(node.DiskReserve)), "free space on that disk, or add one with --disk or prover.disks")
		} else if d.Free < lowDisk && p.Units == 0 {
			note("disk "+d.ID[:8], fmt.Sprintf("%s free in %s, and no random data left to give way", size(d.Free), d.Dir), "add one with --disk, or lower keeper.capacity")
		}
	}
	if p.Kind == mpow.KindDCAP {
		for _, x := range col.Collateral {
			left := time.Duration(x.Until-col.Time) * time.Second
			say("collateral "+x.Name, left > endsSoon, "current", collateralState(x.Until, col.Time), "`lode collateral fetch` and `submit`, or set collateral.every")
		}
	}
	return out
}
