package test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEnclaveFile: what is measured lets no host in: no debugging, nothing of its
// environment, no directory but the one it starts in, and a heap limit that it
// cannot raise (EN-14).
func TestEnclaveFile(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(moduleDir(t), "cmd", "prover", "enclave.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var e struct {
		Exe, Key        string
		Debug           *bool
		HeapSize        int
		ExecutableHeap  bool
		ProductID       int
		SecurityVersion int
		Mounts          []struct {
			Source, Target, Type string
			ReadOnly             bool
		}
		Env []struct {
			Name, Value string
			FromHost    bool
		}
		Files []any
	}
	if err := d.Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.Exe != "prover" || e.Key != "private.pem" || e.Debug == nil || *e.Debug || e.ExecutableHeap || e.HeapSize != 256 || e.ProductID == 0 || e.SecurityVersion == 0 || len(e.Files) > 0 {
		t.Errorf("enclave.json: %+v", e)
	}
	for _, m := range e.Mounts {
		if filepath.IsAbs(m.Source) || m.Type != "hostfs" {
			t.Errorf("mount %+v: an absolute source would be measured, and differ between operators", m)
		}
	}
	env := map[string]string{}
	for _, v := range e.Env {
		if v.FromHost {
			t.Errorf("%s comes from the host", v.Name)
		}
		env[v.Name] = v.Value
	}
	if env["GOMEMLIMIT"] != "176MiB" {
		t.Errorf("GOMEMLIMIT is %q, want 176MiB of the heap of 256", env["GOMEMLIMIT"])
	}
}

// TestEGoIsPinned: another EGo is another measurement; and no signing key is ever
// in the repository (EN-14).
func TestEGoIsPinned(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(moduleDir(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "github.com/edgelesssys/ego v1.9.0\n") {
		t.Error("go.mod does not name EGo v1.9.0")
	}
	top := moduleDir(t)
	err = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || p == filepath.Join(top, "bin")):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(p)
		if privateKey.Match(b) {
			t.Errorf("%s holds a private key", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var privateKey = regexp.MustCompile(`(?m)^-----BEGIN [A-Z ]*PRIVATE KEY-----`)

// TestEnclaveGuide: docs/enclave.md tells an operator each step and each recovery by
// its command, what nobody here has ever run, and what an enclave does not
// withstand, by name (EN-13).
func TestEnclaveGuide(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(moduleDir(t), "docs", "enclave.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{
		"What has never been run", "WireTap", "Battering RAM", "TEE.fail", "ego_1.9.0_amd64_ubuntu", "libsgx-dcap-default-qpl", "/etc/sgx_default_qcnl.conf",
		"make enclave", "make enclave-id", "ego run", "OE_SIMULATION=1", "--simulate", "--disk", "--forget-disk", "--start-over", "--take", "RELEASE_KEYS",
		"lode prover upgrade", "lode prover release", "lode prover abandon", "lode prover verify", "lode collateral submit", "collateral.every", "lode doctor prover",
	} {
		if !bytes.Contains(b, []byte(must)) {
			t.Errorf("docs/enclave.md does not say %q", must)
		}
	}
}

// TestMakeEnclaveWithoutEGo: who has no EGo is told so, and where to read on.
func TestMakeEnclaveWithoutEGo(t *testing.T) {
	for _, target := range []string{"enclave", "enclave-id"} {
		cmd := exec.Command("make", "-C", moduleDir(t), target)
		cmd.Env = append(os.Environ(), "EGO=/nonexistent/ego", "EGO_GO=/nonexistent/ego-go")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "docs/enclave.md") {
			t.Errorf("make %s: %v: %s", target, err, out)
		}
	}
}
