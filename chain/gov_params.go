package chain

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// fixed are the params that nobody changes after genesis (spec §1.5).
var fixed = map[string]bool{ // never iterated
	"era_slots": true, "mpow.slot_blocks": true, "market.slot_blocks": true, "market.era_slots": true,
	"mpow.srd_unit": true, "mpow.srd_leaf": true, "mpow.proof_bytes": true,
	"stake.history_eras": true, "stake.pot_eras": true, "stake.down_window": true, "stake.power_unit": true, "stake.max_guarantors": true,
}

// A NamedParam is one number or switch of [Params].
type NamedParam struct {
	Name  string `json:"name"`            // path in the JSON, as "fees.byte"
	Value uint64 `json:"value"`           // a switch is 0 or 1
	Fixed bool   `json:"fixed,omitempty"` // never changes after genesis
}

// Named returns all numbers and switches of p in the order of its fields.
func (p Params) Named() []NamedParam {
	var out []NamedParam
	eachParam(reflect.ValueOf(&p).Elem(), "", func(name string, v reflect.Value) {
		n := NamedParam{Name: name, Fixed: fixed[name]}
		switch {
		case v.Kind() == reflect.Bool && v.Bool():
			n.Value = 1
		case v.CanInt():
			n.Value = uint64(v.Int())
		case v.CanUint():
			n.Value = v.Uint()
		}
		out = append(out, n)
	})
	return out
}

// With returns p with changes, not yet checked for range; the error names a param
// that does not exist, stands twice, is fixed or cannot have the value (spec
// §1.5, §8.1).
func (p Params) With(changes []ParamChange) (Params, error) {
	refs := map[string]reflect.Value{} // never iterated
	eachParam(reflect.ValueOf(&p).Elem(), "", func(name string, v reflect.Value) { refs[name] = v })
	seen := map[string]bool{} // never iterated
	for _, c := range changes {
		v, ok := refs[c.Name]
		switch {
		case !ok:
			return p, fmt.Errorf("there is no param %q: `lode gov params` lists them", c.Name)
		case fixed[c.Name]:
			return p, fmt.Errorf("param %s never changes after genesis", c.Name)
		case seen[c.Name]:
			return p, fmt.Errorf("param %s stands twice", c.Name)
		case c.Name == "mpow.allow_simulated" && c.Value != 0:
			return p, fmt.Errorf("param %s can be turned off, never on", c.Name)
		case v.Kind() == reflect.Bool && c.Value > 1:
			return p, fmt.Errorf("param %s is a switch: %d is neither 0 nor 1", c.Name, c.Value)
		case c.Value > 1<<62:
			return p, fmt.Errorf("param %s: %d is too large", c.Name, c.Value)
		}
		seen[c.Name] = true
		switch {
		case v.Kind() == reflect.Bool:
			v.SetBool(c.Value == 1)
		case v.CanInt():
			v.SetInt(int64(c.Value))
		default:
			v.SetUint(c.Value)
		}
	}
	return p, nil
}

// eachParam calls fn with each number and switch below v.
func eachParam(v reflect.Value, prefix string, fn func(name string, v reflect.Value)) {
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if tag == "" || tag == "-" {
			continue
		}
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct:
			eachParam(f, prefix+tag+".", fn)
		case f.Kind() == reflect.Bool, f.CanInt(), f.CanUint():
			fn(prefix+tag, f)
		}
	}
}

// spans keeps the values that a param once had by which things wait in a queue:
// where a thing was queued under one of them it is found again (spec §1.7).
var spans = table[string, []int64]{keyGov + "s", wordKey}

const (
	spanPending = "pending" // market.pending_blocks
	spanGrace   = "grace"   // mpow.grace_slots
)

// addSpan returns the values of once other than now, with old.
func addSpan(once []int64, old, now int64) []int64 {
	if !slices.Contains(once, old) {
		once = append(once, old)
	}
	return slices.DeleteFunc(once, func(x int64) bool { return x == now })
}

// amend puts next in force.
func (s *state) amend(next Params) {
	if a, b := s.params.Market.PendingBlocks, next.Market.PendingBlocks; a != b {
		spans.set(s, spanPending, addSpan(spans.must(s, spanPending), a, b))
	}
	if a, b := s.params.Mpow.GraceSlots, next.Mpow.GraceSlots; a != b {
		spans.set(s, spanGrace, addSpan(spans.must(s, spanGrace), int64(a), int64(b)))
	}
	s.params = next
	paramsTable.set(s, paramsKey, next)
}
