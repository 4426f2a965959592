package node

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// docs/settings.md has a line for each setting, and none for what is no setting.
func TestEverySettingIsExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		told[m[1]] = true
	}
	c := Defaults(0)
	fields := map[string]reflect.Value{}
	gather(fields, "", reflect.ValueOf(&c).Elem())
	for _, key := range sortedKeys(fields) {
		if !told[key] {
			t.Errorf("docs/settings.md says nothing of %s", key)
		}
		delete(told, key)
	}
	for key := range told {
		t.Errorf("docs/settings.md explains %s, which is no setting", key)
	}
}

// TestDefaultsAreAsTold holds the defaults that docs/settings.md names to the
// code. What is told in words (of addresses) is left out.
func TestDefaultsAreAsTold(t *testing.T) {
	text, err := os.ReadFile("../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	c := Defaults(0)
	fields := map[string]reflect.Value{}
	gather(fields, "", reflect.ValueOf(&c).Elem())
	compared := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` \\| ([^|]*?) ?\\|").FindAllStringSubmatch(string(text), -1) {
		f, told := fields[m[1]], strings.Trim(m[2], "`")
		if !f.IsValid() || strings.HasPrefix(told, "loopback") || strings.HasPrefix(told, "those") {
			continue
		}
		compared++
		want := fmt.Sprint(f.Interface())
		if d, ok := f.Interface().(Duration); ok {
			b, err := d.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			want = string(b)
			if d, err := time.ParseDuration(told); err == nil {
				told = d.String()
			}
		}
		var n uint64
		var unit string
		if k, _ := fmt.Sscanf(told, "%d %s", &n, &unit); k == 2 {
			told = fmt.Sprint(n << map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[unit])
		}
		if told == "" && f.IsZero() || told == want {
			continue
		}
		t.Errorf("docs/settings.md says that %s is %q, the code %q", m[1], m[2], want)
	}
	if compared < 25 {
		t.Errorf("%d defaults compared, want nearly all", compared)
	}
}
