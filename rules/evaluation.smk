rule measure_arc_light:
    input:
        stamps="results/datasets/{dataset}/stamps.json",
        lenses="results/catalogue/lenses.json",
        coadds="results/datasets/{dataset}/coadds.json",
        code=code("dark_halo_scope.evaluation.measure_arc_light", "spark"),
    output:
        "results/datasets/{dataset}/arc_light.json",
    log:
        "logs/measure_arc_light/{dataset}.log",
    benchmark:
        "benchmarks/measure_arc_light/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("build", "existing"),
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=120,
    params:
        settings=settings("dataset", "arc_light"),
        stamps=settings("dataset", "stamps"),
    message:
        "Measuring the light of arcs in {wildcards.dataset} and in known lenses"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_arc_light --stamps {input.stamps} --lenses {input.lenses}"
        " --coadds {input.coadds} --settings {params.settings:q} --stamp-settings {params.stamps:q}"
        " --output {output} 2> >(tee {log} >&2)"


rule score:
    input:
        model=deployed_model,
        packed="results/datasets/{dataset}/packed.json",
        code=code("dark_halo_scope.evaluation.score", "train"),
    output:
        "results/{generation}/scores/{dataset}/{split}.json",
    log:
        "logs/score/{generation}/{dataset}/{split}.log",
    benchmark:
        "benchmarks/score/{generation}/{dataset}/{split}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        settings=settings("generation", "scoring"),
    message:
        "Scoring {wildcards.dataset} ({wildcards.split}) with {wildcards.generation} (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.score --model {input.model} --packed {input.packed}"
        " --split {wildcards.split} --settings {params.settings:q} --threads {threads}"
        " --output {output} 2> >(tee {log} >&2)"


rule measure_performance:
    input:
        test=gate_scores("test"),
        val=gate_scores("val"),
        code=code("dark_halo_scope.evaluation.measure_performance", "train"),
    output:
        "results/{generation}/performance.json",
    log:
        "logs/measure_performance/{generation}.log",
    benchmark:
        "benchmarks/measure_performance/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=settings("generation", "performance"),
    message:
        "Measuring the performance of {wildcards.generation}"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_performance --test {input.test} --val {input.val}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule stratify_fpr:
    input:
        scores=gate_scores("test"),
        galaxies=gate_galaxies,
        code=code("dark_halo_scope.evaluation.stratify_fpr", "train"),
    output:
        "results/{generation}/stratified_fpr.csv",
    log:
        "logs/stratify_fpr/{generation}.log",
    benchmark:
        "benchmarks/stratify_fpr/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=settings("generation", "fpr"),
    message:
        "Measuring false positive rates of {wildcards.generation} by stratum"
    shell:
        "exec python -m dark_halo_scope.evaluation.stratify_fpr --scores {input.scores} --galaxies {input.galaxies}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule calibrate:
    input:
        val=gate_scores("val"),
        test=gate_scores("test"),
        code=code("dark_halo_scope.evaluation.calibrate", "train"),
    output:
        "results/{generation}/calibration.json",
    log:
        "logs/calibrate/{generation}.log",
    benchmark:
        "benchmarks/calibrate/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=settings("generation", "calibration"),
    message:
        "Calibrating {wildcards.generation} on validation scores, and judging it on test scores"
    shell:
        "exec python -m dark_halo_scope.evaluation.calibrate --val {input.val} --test {input.test}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule check_calibration:
    input:
        calibration="results/{generation}/calibration.json",
        code=code("dark_halo_scope.evaluation.check_calibration", "train"),
    output:
        "results/{generation}/calibration.passed.json",
    log:
        "logs/check_calibration/{generation}.log",
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        settings=settings("generation", "calibration"),
    message:
        "Judging the calibration of {wildcards.generation}: fails where it is bad and calibration_blocks is set"
    shell:
        "exec python -m dark_halo_scope.evaluation.check_calibration --calibration {input.calibration}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule measure_completeness:
    input:
        val=gate_scores("val"),
        test=gate_scores("test"),
        parent="results/catalogue/parent.json",
        survey="results/survey.json",
        code=code("dark_halo_scope.evaluation.measure_completeness", "train"),
    output:
        json="results/{generation}/completeness.json",
        cells="results/{generation}/completeness.csv",
        surface="results/{generation}/completeness_surface.csv",
    log:
        "logs/measure_completeness/{generation}.log",
    benchmark:
        "benchmarks/measure_completeness/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=settings("generation", "completeness"),
    message:
        "Measuring the completeness of {wildcards.generation} by cell and as a smooth surface"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_completeness --val {input.val} --test {input.test}"
        " --parent {input.parent} --survey {input.survey} --settings {params.settings:q} --output {output.json}"
        " --cells {output.cells} --surface {output.surface} 2> >(tee {log} >&2)"


rule mine_hard_negatives:
    input:
        scores="results/{generation}/scores/parent/train.json",
        packed="results/datasets/parent/packed.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.evaluation.mine_hard_negatives", "spark"),
    output:
        "results/{generation}/hard_negatives.json",
    log:
        "logs/mine_hard_negatives/{generation}.log",
    benchmark:
        "benchmarks/mine_hard_negatives/{generation}.tsv"
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        settings=settings("generation", "mining"),
    message:
        "Mining the galaxies that {wildcards.generation} takes for lenses"
    shell:
        "exec python -m dark_halo_scope.evaluation.mine_hard_negatives --scores {input.scores} --packed {input.packed}"
        " --lenses {input.lenses} --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule measure_gates:
    input:
        model=deployed_model,
        packed=gate_data("packed"),
        quality=gate_data("quality"),
        code=code("dark_halo_scope.evaluation.measure_gates", "train"),
    output:
        "results/{generation}/gates.json",
    log:
        "logs/measure_gates/{generation}.log",
    benchmark:
        "benchmarks/measure_gates/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=240,
    params:
        settings=settings("generation", "gates"),
    message:
        "Measuring the gates of {wildcards.generation} (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_gates --model {input.model} --packed {input.packed}"
        " --quality {input.quality} --settings {params.settings:q} --threads {threads}"
        " --output {output} 2> >(tee {log} >&2)"


rule check_gates:
    input:
        gates="results/{generation}/gates.json",
        model=deployed_model,
        code=code("dark_halo_scope.evaluation.check_gates", "train"),
    output:
        "results/{generation}/gates.passed.json",
    log:
        "logs/check_gates/{generation}.log",
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        settings=settings("generation", "gates"),
    message:
        "Judging the gates of {wildcards.generation}: fails unless the verdict is pass"
    shell:
        "exec python -m dark_halo_scope.evaluation.check_gates --gates {input.gates} --model {input.model}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule compare_negative_control:
    input:
        control="results/{generation}/gates.json",
        main=gates_to_beat,
        code=code("dark_halo_scope.evaluation.compare", "train"),
    output:
        "results/{generation}/comparison.json",
    log:
        "logs/compare_negative_control/{generation}.log",
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    message:
        "Comparing {wildcards.generation} with the generation that it is the negative control of"
    shell:
        "exec python -m dark_halo_scope.evaluation.compare --main {input.main} --control {input.control} --report-only"
        " --output {output} 2> >(tee {log} >&2)"


rule score_anchors:
    input:
        model=deployed_model,
        cutouts="results/anchors/cutouts.json",
        code=code("dark_halo_scope.evaluation.score_anchors", "train"),
    output:
        "results/{generation}/anchor_scores.json",
    log:
        "logs/score_anchors/{generation}.log",
    benchmark:
        "benchmarks/score_anchors/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        settings=settings("generation", "anchors"),
    message:
        "Scoring known lenses with {wildcards.generation} (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.score_anchors --model {input.model} --cutouts {input.cutouts}"
        " --settings {params.settings:q} --threads {threads} --output {output} 2> >(tee {log} >&2)"


rule evaluate_anchors:
    input:
        scores="results/{generation}/anchor_scores.json",
        performance="results/{generation}/performance.json",
        comparison=gate_scores("test"),
        code=code("dark_halo_scope.evaluation.evaluate_anchors", "train"),
    output:
        anchors="results/{generation}/anchors.json",
        table="results/{generation}/anchors.csv",
    log:
        "logs/evaluate_anchors/{generation}.log",
    benchmark:
        "benchmarks/evaluate_anchors/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=settings("generation", "anchors"),
    message:
        "Measuring the recall of known lenses by {wildcards.generation}"
    shell:
        "exec python -m dark_halo_scope.evaluation.evaluate_anchors --scores {input.scores}"
        " --performance {input.performance} --comparison {input.comparison} --settings {params.settings:q}"
        " --output {output.anchors} --table {output.table} 2> >(tee {log} >&2)"


rule measure_realism:
    input:
        model=deployed_model,
        packed=gate_data("packed"),
        scores=gate_scores("test"),
        cutouts="results/anchors/cutouts.json",
        arc_light=gate_data("arc_light"),
        code=code("dark_halo_scope.evaluation.measure_realism", "train"),
    output:
        realism="results/{generation}/realism.json",
        errors="results/{generation}/errors.csv",
    log:
        "logs/measure_realism/{generation}.log",
    benchmark:
        "benchmarks/measure_realism/{generation}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=120,
    params:
        settings=settings("generation", "realism"),
    message:
        "Probing injections against known lenses with {wildcards.generation} (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_realism --model {input.model} --packed {input.packed}"
        " --scores {input.scores} --cutouts {input.cutouts} --arc-light {input.arc_light}"
        " --settings {params.settings:q} --threads {threads} --output {output.realism} --errors {output.errors}"
        " 2> >(tee {log} >&2)"


rule run_preflight:
    input:
        survey="results/survey.json",
        coadds=training_data("coadds"),
        stamps=training_data("stamps"),
        packed=training_data("packed"),
        code=code("dark_halo_scope.training.preflight", "train"),
    output:
        "results/{generation}/preflight.json",
    log:
        "logs/run_preflight/{generation}.log",
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        settings=trainings,
    message:
        "Checking item by item that {wildcards.generation} can be trained here"
    shell:
        "exec python -m dark_halo_scope.training.preflight --survey {input.survey} --report-only"
        " --coadds {input.coadds} --stamps {input.stamps} --packed {input.packed}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
