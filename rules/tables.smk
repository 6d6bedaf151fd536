rule measure_targets:
    input:
        survey="results/survey.json",
        artifacts=target_artifacts(),
        code=code("dark_halo_scope.evaluation.measure_targets", "train"),
    output:
        "results/targets.json",
    log:
        "logs/measure_targets.log",
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Measuring every success target of the plans"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_targets --survey {input.survey}"
        " --artifacts {input.artifacts} --output {output} 2> >(tee {log} >&2)"


rule table_paper_dataset:
    input:
        packed=expand(
            "results/datasets/{dataset}/packed.json", dataset=paper_datasets()
        ),
        quality=expand(
            "results/datasets/{dataset}/quality.json", dataset=paper_datasets()
        ),
        code=code("dark_halo_scope.paper.dataset_table", "figures"),
    output:
        "results/paper/tables/dataset.csv",
        "results/paper/tables/dataset.md",
        "results/paper/tables/dataset.tex",
    log:
        "logs/table_paper_dataset.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        names=" ".join(paper_datasets()),
    message:
        "Putting into a table what each dataset holds"
    shell:
        "exec python -m dark_halo_scope.paper.dataset_table --names {params.names}"
        " --packed {input.packed} --quality {input.quality} --output {output} 2> >(tee {log} >&2)"


rule table_paper_hyperparameters:
    input:
        models=trained_stages(CONFIG.main_generations, "best"),
        code=code("dark_halo_scope.paper.hyperparameter_table", "figures"),
    output:
        "results/paper/tables/hyperparameters.csv",
        "results/paper/tables/hyperparameters.md",
        "results/paper/tables/hyperparameters.tex",
    log:
        "logs/table_paper_hyperparameters.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Putting into a table how each stage was trained"
    shell:
        "exec python -m dark_halo_scope.paper.hyperparameter_table --models {input.models}"
        " --output {output} 2> >(tee {log} >&2)"


rule table_paper_gates:
    input:
        gates=measured(CONFIG.main_generations, "gates"),
        code=code("dark_halo_scope.paper.gate_strata_table", "figures"),
    output:
        "results/paper/tables/gates.csv",
        "results/paper/tables/gates.md",
        "results/paper/tables/gates.tex",
    log:
        "logs/table_paper_gates.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Putting every gate in every stratum into a table"
    shell:
        "exec python -m dark_halo_scope.paper.gate_strata_table --gates {input.gates}"
        " --output {output} 2> >(tee {log} >&2)"


rule table_paper_anchors:
    input:
        anchors=measured(CONFIG.main_generations, "anchors"),
        code=code("dark_halo_scope.paper.anchor_table", "figures"),
    output:
        "results/paper/tables/anchors.csv",
        "results/paper/tables/anchors.md",
        "results/paper/tables/anchors.tex",
    log:
        "logs/table_paper_anchors.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Putting the recall of known lenses into a table"
    shell:
        "exec python -m dark_halo_scope.paper.anchor_table --anchors {input.anchors}"
        " --output {output} 2> >(tee {log} >&2)"


rule table_paper_prior_work:
    input:
        survey="results/survey.json",
        artifacts=measured(CONFIG.main_generations, "gates", "performance", "anchors"),
        code=code("dark_halo_scope.paper.prior_work_table", "figures"),
    output:
        "results/paper/tables/prior_work.csv",
        "results/paper/tables/prior_work.md",
        "results/paper/tables/prior_work.tex",
    log:
        "logs/table_paper_prior_work.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Putting every generation beside what others have measured"
    shell:
        "exec python -m dark_halo_scope.paper.prior_work_table --survey {input.survey}"
        " --artifacts {input.artifacts} --output {output} 2> >(tee {log} >&2)"


rule table_paper_targets:
    input:
        targets="results/targets.json",
        code=code("dark_halo_scope.paper.target_table", "figures"),
    output:
        "results/paper/tables/targets.csv",
        "results/paper/tables/targets.md",
        "results/paper/tables/targets.tex",
    log:
        "logs/table_paper_targets.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Putting the success targets into a table"
    shell:
        "exec python -m dark_halo_scope.paper.target_table --targets {input.targets}"
        " --output {output} 2> >(tee {log} >&2)"


rule key_numbers:
    input:
        survey="results/survey.json",
        packed=paper_training_data("packed"),
        quality=paper_training_data("quality"),
        artifacts=measured(
            [CONFIG.survey.paper.generation],
            "best",
            "gates",
            "performance",
            "calibration",
            "anchors",
        ),
        code=code("dark_halo_scope.paper.key_numbers", "figures"),
    output:
        numbers="results/paper/key_numbers.json",
        tex="results/paper/key_numbers.tex",
    log:
        "logs/key_numbers.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Writing the numbers of the paper's text"
    shell:
        "exec python -m dark_halo_scope.paper.key_numbers --survey {input.survey} --packed {input.packed}"
        " --quality {input.quality} --artifacts {input.artifacts} --output {output.numbers} --tex {output.tex} 2> >(tee {log} >&2)"
