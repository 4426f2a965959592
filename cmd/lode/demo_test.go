package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// runDemo runs the demo with a smaller file in a process of its own and returns its exit code and what it printed.
func runDemo(t *testing.T, sabotage string) (code int, stdout, stderr string) {
	t.Helper()
	if testing.Short() {
		t.Skip("the demo runs for a minute")
	}
	program, err := exec.LookPath("lode") // this test binary, by testscript
	if err != nil {
		t.Fatal(err)
	}
	var out, talk bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, "demo", "--json", "--size", "16MiB", "--home", t.TempDir())
	cmd.Env = append(os.Environ(), breakVar+"="+sabotage)
	cmd.Stdout, cmd.Stderr = &out, &talk
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), talk.String()
}

func TestDemoPasses(t *testing.T) {
	code, out, talk := runDemo(t, "")
	if code != 0 {
		t.Fatalf("exit %d, want 0:\n%s", code, talk)
	}
	var r struct {
		Checks    int
		Simulated bool
		Nodes     []nodeRow
		Collected []collected
		Supply    struct{ Conserved bool }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if r.Checks < 20 || !r.Simulated || len(r.Nodes) != 6 || len(r.Collected) < 3 || !r.Supply.Conserved {
		t.Errorf("got %+v, want 20 checks and more of a simulated network of 6 nodes, all running holders paid, with its supply conserved", r)
	}
}

// A check that cannot fail is none: each step is broken on purpose, and the failure must name that step.
func TestDemoNoticesWhatIsBroken(t *testing.T) {
	for _, s := range demoSteps {
		t.Run(s.name, func(t *testing.T) {
			code, out, talk := runDemo(t, s.name)
			if code == 0 || !strings.Contains(talk, "step "+s.name+": check failed: ") {
				t.Errorf("exit %d, want a failed check of step %s; stdout %q, stderr:\n%s", code, s.name, out, talk)
			}
		})
	}
}
