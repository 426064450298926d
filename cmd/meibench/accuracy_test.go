package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	rowsHeader  = "device,accelerator,framework,framework_version,model,params_b,quant,bytes_per_weight,prompt_tokens,gen_tokens,prefill_tok_s,decode_tok_s,power_w,source,notes\n"
	specsHeader = "device,class,fp16_tflops,int8_tops,mem_bw_gbs,mem_gb,tdp_w,source,confidence,matches\n"
)

func writeText(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// TestAccuracyPredictsAFile predicts a device that only --specs knows, refuses
// one that nobody knows, and says why.
func TestAccuracyPredictsAFile(t *testing.T) {
	rows := writeText(t, "rows.csv", rowsHeader+
		"Card X,GPU,llama.cpp,2026,Llama-3-8B,8.03,Q4_K_M,0.612,512,128,3000,100,,me,\n"+
		"Card X,GPU,llama.cpp,2026,Llama-3.2-3B,3.21,Q4_K_M,0.629,512,128,7000,200,,me,\n"+
		"Card X,GPU,llama.cpp,2026,Llama-3.2-1B,1.24,Q4_K_M,0.629,512,128,,400,,me,\n"+
		"Unheard of,GPU,llama.cpp,2026,Llama-3-8B,8.03,Q4_K_M,0.612,512,128,,100,,me,\n"+
		"Card X,GPU,llama.cpp,2026,Llama-3-8B,8.03,Q4_K_M,0.612,512,128,,,,me,\n")
	specs := writeText(t, "specs.csv", specsHeader+"Card X,desktop_gpu,150,300,800,16,300,sheet,A,\n")
	table := filepath.Join(t.TempDir(), "out.csv")
	code, out, errOut := do(t, "accuracy", "--rows", rows, "--specs", specs, "--json", "--out", table)
	require.Zero(t, code, errOut)
	var got struct {
		Decode, Prefill struct {
			N   int
			APE float64 `json:"median_ape"`
		}
		Refused map[string]int
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, 3, got.Decode.N)
	require.Equal(t, 2, got.Prefill.N)
	require.Less(t, got.Decode.APE, 60.0)
	require.Equal(t, map[string]int{"device in no specification": 1, "row without a speed": 1}, got.Refused)
	text, err := os.ReadFile(table)
	require.NoError(t, err)
	require.Len(t, strings.Split(strings.TrimSpace(string(text)), "\n"), 6)

	code, out, errOut = do(t, "accuracy", "--rows", rows, "--specs", specs, "--json", "--calibrate", "2")
	require.Zero(t, code, errOut)
	got.Refused = nil
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, 1, got.Decode.N)
	require.Equal(t, 2, got.Refused["used to calibrate"])
}

// TestAccuracyRefusesBadInput names the place of what is wrong.
func TestAccuracyRefusesBadInput(t *testing.T) {
	good := "Card X,GPU,llama.cpp,2026,Llama-3-8B,8.03,Q4_K_M,0.612,512,128,3000,100,,me,\n"
	for _, tc := range []struct {
		name, rows, specs string
		args              []string
		want              string
	}{
		{"no such file", "", "", []string{"--rows", "nowhere.csv"}, "nowhere.csv"},
		{"a column is missing", strings.Replace(rowsHeader, ",quant", "", 1), "", nil, "rows.csv:1:quant: the column is missing"},
		{"an unknown column", strings.Replace(rowsHeader, ",quant", ",quality", 1), "", nil, `rows.csv:1:"quality": unknown column`},
		{"no number", rowsHeader + strings.Replace(good, "8.03", "eight", 1), "", nil, `rows.csv:2:params_b: "eight" is no number`},
		{"below zero", rowsHeader + good + strings.Replace(good, "100,", "-1,", 1), "", nil, "rows.csv:3:decode_tok_s: -1 is no possible value"},
		{"no device", rowsHeader + strings.Replace(good, "Card X", "", 1), "", nil, "rows.csv:2:device: empty"},
		{"a field too few", rowsHeader + "a,b\n", "", nil, "rows.csv:2: 2 fields, and the header has 15"},
		{"no rows", rowsHeader, "", nil, "no rows below the header"},
		{"a name twice", rowsHeader + good, specsHeader + "A,sbc,,,10,,,,,Card X\nB,sbc,,,10,,,,,Card X\n", nil, `specs.csv:3:matches: "Card X" already names the device "A"`},
		{"too many rows to calibrate", rowsHeader + good, "", []string{"--calibrate", "4"}, "want 0 to 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"accuracy"}, tc.args...)
			if tc.rows != "" {
				args = append(args, "--rows", writeText(t, "rows.csv", tc.rows))
			}
			if tc.specs != "" {
				args = append(args, "--specs", writeText(t, "specs.csv", tc.specs))
			}
			code, _, errOut := do(t, args...)
			require.Equal(t, exitUsage, code)
			require.Contains(t, errOut, tc.want)
		})
	}
}
