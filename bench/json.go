package bench

import (
	"encoding/json"
	"maps"
	"math"
)

// number reports whether JSON has a word for v.
func number(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// MarshalJSON leaves out values that are infinite or no number, so that one
// division by nothing does not cost a run its report.
func (s Sample) MarshalJSON() ([]byte, error) {
	type plain Sample
	p := plain(s)
	p.Values = maps.Clone(s.Values)
	maps.DeleteFunc(p.Values, func(_ string, v float64) bool { return !number(v) })
	return json.Marshal(p)
}

// MarshalJSON writes 0 for what is infinite or no number.
func (r Ratio) MarshalJSON() ([]byte, error) {
	type plain Ratio
	p := plain(r)
	for _, v := range []*float64{&p.Value, &p.Lo, &p.Hi, &p.Ours, &p.Yardstick} {
		if !number(*v) {
			*v = 0
		}
	}
	return json.Marshal(p)
}
