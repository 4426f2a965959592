//go:build ego

package prover

import (
	"os"

	"github.com/edgelesssys/ego/enclave"
)

// Here returns what this process can ask of the hardware, through EGo.
func Here() Machine {
	return Machine{
		InEnclave: os.Getenv("OE_IS_ENCLAVE") == "1",
		Self: func() (SelfReport, error) {
			r, err := enclave.GetSelfReport()
			return SelfReport{r.UniqueID, r.Debug}, err
		},
		NewKey: enclave.GetRandomUniqueSealKey,
		Key:    enclave.GetSealKey,
		Quote:  enclave.GetRemoteReport,
		Local:  enclave.GetLocalReport,
		Check: func(report []byte) (SelfReport, []byte, error) {
			r, err := enclave.VerifyLocalReport(report)
			return SelfReport{r.UniqueID, r.Debug}, r.Data, err
		},
	}
}
