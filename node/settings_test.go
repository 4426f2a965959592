package node

import (
	"os"
	"reflect"
	"regexp"
	"testing"
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
