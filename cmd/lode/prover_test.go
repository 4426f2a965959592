package main

import (
	"strings"
	"testing"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/node"
)

// healthy is what a doctor finds nothing wrong with.
func healthy() (proverAnswer, collateralAnswer) {
	a := proverAnswer{
		Height: 100, Slot: 5, Chain: "lode-1", Node: mpow.Account("me").String(), Registered: true, AttestedUntil: 50, Graced: 80, LastSlot: 5, Last: &node.LastReport{Slot: 5},
		Prover: mpow.ProverInfo{Kind: mpow.KindDCAP, Mode: "sgx", Account: "me", ChainID: "lode-1", Units: 3,
			Disks: []mpow.ProverDisk{{ID: "0123456789abcdef", Dir: "/d", Free: 1 << 40}}},
	}
	return a, collateralAnswer{Time: 1000, Collateral: []chain.Collateral{{Name: "qe", Until: 1000 + 20*24*3600}}}
}

// Each thing that keeps a storage node from earning is found, alone, with a remedy.
func TestDoctorFindsWhatIsWrong(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(a *proverAnswer, c *collateralAnswer)
		state string // of the finding; empty: all is ok
		what  string
	}{
		{"healthy", func(*proverAnswer, *collateralAnswer) {}, "", ""},
		{"last slot's report, this one's to come", func(a *proverAnswer, _ *collateralAnswer) { a.LastSlot = 4 }, "", ""},
		{"simulated", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Kind, a.Prover.Mode = mpow.KindSimulated, "sim" }, "note", "platform"},
		{"another account's", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Account = "other" }, "FAIL", "bound to this node"},
		{"another chain's", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.ChainID = "lode-2" }, "FAIL", "bound to this node"},
		{"not registered", func(a *proverAnswer, _ *collateralAnswer) { a.Registered = false }, "FAIL", "registered"},
		{"in the grace", func(a *proverAnswer, _ *collateralAnswer) { a.Slot, a.LastSlot = 60, 60 }, "note", "renewal"},
		{"lapsed", func(a *proverAnswer, _ *collateralAnswer) { a.Slot, a.LastSlot = 90, 90 }, "FAIL", "registration lasts"},
		{"silent", func(a *proverAnswer, _ *collateralAnswer) { a.LastSlot = 3 }, "FAIL", "reports"},
		{"handed over", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Handing = "gave" }, "FAIL", "hand-over"},
		{"handing over", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Handing = "giving" }, "note", "hand-over"},
		{"lost files", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Lost = 2 }, "FAIL", "files whole"},
		{"a full disk", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Units, a.Prover.Disks[0].Free = 0, 1 }, "note", "disk 01234567"},
		{"a full disk with random data to give way", func(a *proverAnswer, _ *collateralAnswer) { a.Prover.Disks[0].Free = 1 }, "", ""},
		{"collateral that ends", func(_ *proverAnswer, c *collateralAnswer) { c.Collateral[0].Until = 1000 + 3600 }, "FAIL", "collateral qe"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, c := healthy()
			row.spoil(&a, &c)
			var odd []finding
			for _, f := range examineProver(a, c) {
				if f.State != "ok" {
					odd = append(odd, f)
				}
			}
			if row.state == "" {
				if len(odd) > 0 {
					t.Errorf("found %+v, want nothing", odd)
				}
				return
			}
			if len(odd) != 1 || odd[0].State != row.state || odd[0].What != row.what || strings.TrimSpace(odd[0].Remedy) == "" {
				t.Errorf("found %+v, want one %s of %q with a remedy", odd, row.state, row.what)
			}
		})
	}
}

// A disk without the room that a storage node leaves free is why nothing more may be staked: the prover's status and the
// doctor name it.
func TestAFullDiskIsNamedByTheProver(t *testing.T) {
	a, c := healthy()
	a.Prover.Kind, a.Prover.Mode, a.Prover.Disks[0].Free = mpow.KindSimulated, "sim", node.DiskReserve
	named := func() (found bool, status string) {
		for _, f := range examineProver(a, c) {
			found = found || f.State == "FAIL" && strings.Contains(f.Word, "free in /d") && f.Remedy != ""
		}
		var out strings.Builder
		printProver(&out, a)
		return found, out.String()
	}
	if found, status := named(); found || strings.Contains(status, "no file is taken") {
		t.Errorf("with room: found %v, %s", found, status)
	}
	a.Prover.Disks[0].Free--
	if found, status := named(); !found || !strings.Contains(status, "/d has less than 1 GiB free: no file is taken") {
		t.Errorf("without room: found %v, %s", found, status)
	}
}
