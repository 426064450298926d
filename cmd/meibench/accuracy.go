package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"meibench/hardware/predict"
)

const accuracyLong = `Predict published measurements of language-model speed on devices that the law
has never seen, and print how wrong it was.

Without arguments: the embedded rows, one device left out at a time, by class,
type, size, quantisation, context, batch and tier, with the table of bars and
every refusal with its reason.

--rows predicts the rows of a file instead (the columns of
published_llm_speed.csv), by a law fitted on the embedded rows without any
device that occurs in the file; --specs adds data sheets (the columns of
device_specs.csv). --calibrate N shows the law N plain rows of each device, type
and runtime (1: the middle model, 2: the smallest and the largest, 3: all three)
and predicts the rest.

Errors are absolute percentage errors of tokens/s: the median and the 90 % point.
docs/accuracy.md tells how the predictions are made.`

type accuracyFlags struct {
	rows, specs, out string
	calibrate        int
}

func newAccuracy(a *app) *cobra.Command {
	f := &accuracyFlags{}
	c := &cobra.Command{
		Use: "accuracy", Short: "how right the modelled world is about hardware nobody here owns", Long: accuracyLong, Args: cobra.NoArgs,
		Example: "  meibench accuracy\n  meibench accuracy --calibrate 2\n  meibench accuracy --rows mine.csv --specs devices.csv --json\n  meibench accuracy --out predictions.csv",
		RunE:    func(*cobra.Command, []string) error { return a.accuracy(f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.rows, "rows", "", "CSV file of rows to predict instead of the embedded ones")
	fs.StringVar(&f.specs, "specs", "", "CSV file of device specifications, added to the embedded ones")
	fs.IntVar(&f.calibrate, "calibrate", 0, fmt.Sprintf("rows of each device and runtime that the law may see, 0 to %d", predict.MostCalibration))
	fs.StringVarP(&f.out, "out", "o", "", "CSV file to write every prediction to, with its interval and tier")
	return c
}

// accuracy predicts and prints.
func (a *app) accuracy(f *accuracyFlags) error {
	predictions, sum, err := f.predict()
	if err != nil {
		return withCode(exitUsage, err)
	}
	if f.out != "" {
		if err := writePredictions(f.out, predictions); err != nil {
			return withCode(exitEnvironment, err)
		}
	}
	if a.json {
		return sum.JSON(a.out)
	}
	return sum.Text(a.out)
}

// predict runs what the flags ask for.
func (f *accuracyFlags) predict() ([]predict.Prediction, *predict.Accuracy, error) {
	if f.rows == "" && f.specs == "" && f.calibrate == 0 {
		return predict.Embedded()
	}
	study, err := newStudy(f)
	if err != nil {
		return nil, nil, err
	}
	predictions, err := study.Run()
	if err != nil {
		return nil, nil, err
	}
	sum := predict.Summarise(predictions)
	return predictions, &sum, nil
}

// newStudy reads what is to be predicted and leaves its devices out of what is
// learnt from.
func newStudy(f *accuracyFlags) (*predict.Study, error) {
	train, specs, err := predict.Published()
	if err != nil {
		return nil, err
	}
	c := predict.NewCatalogue(specs)
	if f.specs != "" {
		more, err := predict.LoadSpecs(f.specs)
		if err != nil {
			return nil, err
		}
		c = predict.NewCatalogue(specs, more)
	}
	s := &predict.Study{Catalogue: c, Train: train, Rows: train, Calibrate: f.calibrate}
	if f.rows != "" {
		if s.Rows, err = predict.LoadRows(f.rows); err != nil {
			return nil, err
		}
		s.Train = predict.Without(train, s.Rows, predict.NewCatalogue(specs), c)
	}
	return s, nil
}

func writePredictions(path string, ps []predict.Prediction) error {
	w, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write predictions: %w", err)
	}
	if err := predict.WriteCSV(w, ps); err != nil {
		w.Close()
		return fmt.Errorf("write predictions to %s: %w", path, err)
	}
	return w.Close()
}
