"""Whether a smaller or a larger `monitor` is better: known from its name, or asked for."""

import pytest
from helpers.runs import result, rows, the_run

QUICK = ("model=mlp", "epochs=4", "limit_train_batches=5", "logger=none")
ASKED = "better? Set monitor_mode=min or max."

SMALLER = "loss class_loss loss/total error top5_error err rmse val-mae MSE nll ppl perplexity epe wer cer l_loss loss1"
LARGER = "acc accuracy class_acc top5 acc@1 f1 f1_score f1/macro miou mIoU map mAP50 auc r2 psnr ssim bleu recall"
UNKNOWN = "score energy lossy macc neg_loss negative_error minus_acc 1-acc acc_std acc_gap dice_loss acc/error"


@pytest.mark.parametrize(("names", "mode"), [(SMALLER, "min"), (LARGER, "max"), (UNKNOWN, None)])
def test_usual_names(engine, names, mode):
    usual_mode = engine("config.check").usual_mode
    assert {name: usual_mode(f"val/{name}", {}) for name in names.split()} == dict.fromkeys(names.split(), mode)


def test_a_term_of_the_loss_is_a_loss(engine):
    loss = {"_target_": ".engine.losses.WeightedSum", "terms": {"dice": {"weight": 1.0}}}
    assert engine("config.check").usual_mode("val/dice", loss) == "min"


def assert_keeps_the_best(folder, best, mode):
    values = [row["val/loss"] for row in rows(folder) if "val/loss" in row]
    assert len(set(values)) > 1
    assert result(folder)["best"] == best(values)
    assert f"monitor_mode: {mode}\n" in (folder / "config.yaml").read_text()


@pytest.fixture
def older(workspace):
    """`older(mode)`: configs/train.yaml names the mode, as until 0.2.0."""
    path = workspace / "configs/train.yaml"
    text = path.read_text()
    assert "monitor_mode: auto" in text
    return lambda mode: path.write_text(text.replace("monitor_mode: auto", f"monitor_mode: {mode}"))


def test_the_monitor_alone_keeps_the_best_weights(train, workspace):
    assert train(*QUICK, "monitor=val/loss").code == 0
    assert_keeps_the_best(the_run(workspace), min, "min")


def test_a_mode_of_a_file_that_does_not_fit_is_refused(train, workspace, older):
    older("max")
    done = train(*QUICK, "monitor=val/loss")
    assert done.code == 2
    assert "monitor_mode=max of a config file does not fit monitor=val/loss. Add monitor_mode=auto, min" in done.last
    assert len(done.out.strip().splitlines()) == 1
    assert not (workspace / "runs").exists()
    done = train("-m", *QUICK, "monitor=val/acc,val/loss")
    assert done.code == 2
    assert "does not fit monitor=val/loss" in done.last
    assert not list((workspace / "runs").glob("*/*/manifest.json"))
    assert train(*QUICK, "monitor=val/loss", "monitor_mode=auto", "name=auto").code == 0
    assert_keeps_the_best(the_run(workspace, "auto"), min, "min")
    assert train(*QUICK, "monitor=val/loss", "monitor_mode=max", "name=insists").code == 0
    assert_keeps_the_best(the_run(workspace, "insists"), max, "max")


def test_other_names_are_asked_for(train, workspace, older):
    done = train(*QUICK, "monitor=val/energy")
    assert done.code == 2
    assert f"larger val/energy {ASKED}" in done.last
    older("max")  # for val/acc, not for this one
    done = train(*QUICK, "monitor=val/energy")
    assert done.code == 2
    assert "monitor_mode=max of a config file may not fit monitor=val/energy. Add monitor_mode=" in done.last
    assert not (workspace / "runs").exists()
    done = train(*QUICK, "monitor=val/energy", "monitor_mode=min")
    assert done.code == 2
    assert "monitor=val/energy is not one of the values val/loss, val/acc" in done.last


def test_an_equal_run_is_found_however_its_mode_was_written(train, workspace, older):
    older("max")
    assert train(*QUICK).code == 0
    older("auto")
    done = train(*QUICK, "resume=auto")
    assert done.code == 0, done.out
    assert "Nothing is left to do" in done.last
    assert "monitor_mode: max\n" in (the_run(workspace) / "config.yaml").read_text()


def test_a_run_that_began_with_a_mode_which_does_not_fit_goes_on(train, workspace, older):
    older("max")
    text = (workspace / "configs/train.yaml").read_text()
    (workspace / "configs/train.yaml").write_text(text.replace("monitor: val/acc", "monitor: val/loss"))
    assert train(*QUICK, "monitor_mode=max", "max_minutes=1e-9").code == 75
    for resume in ("auto", str(the_run(workspace))):
        done = train(*QUICK, f"resume={resume}")
        assert done.code == 0, done.out
    assert_keeps_the_best(the_run(workspace), max, "max")
