rule figure_training_examples:
    input:
        packed="results/datasets/{dataset}/packed.json",
        code=code("dark_halo_scope.paper.training_examples", "figures"),
    output:
        "results/figures/training_examples_{dataset}.png",
        "results/figures/training_examples_{dataset}.pdf",
    log:
        "logs/figure_training_examples/{dataset}.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("dataset", "examples"),
    message:
        "Drawing examples of {wildcards.dataset}"
    shell:
        "exec python -m dark_halo_scope.paper.training_examples --packed {input.packed}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_dataset_page:
    input:
        stamps="results/datasets/{dataset}/stamps.json",
        quality="results/datasets/{dataset}/quality.json",
        arc_light="results/datasets/{dataset}/arc_light.json",
        negatives=negatives_of,
        code=code("dark_halo_scope.paper.dataset_page", "figures"),
    output:
        report(
            "results/datasets/{dataset}/page.png",
            caption="../workflow/report/figure_dataset_page.rst",
            category="Datasets",
            labels={"what": "{dataset}"},
        ),
        "results/datasets/{dataset}/page.pdf",
    log:
        "logs/figure_dataset_page/{dataset}.log",
    wildcard_constraints:
        dataset=datasets_of("build", "existing"),
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        settings=settings("dataset", "page"),
    message:
        "Drawing the page of {wildcards.dataset}: distributions, realism, shortcuts, examples"
    shell:
        "exec python -m dark_halo_scope.paper.dataset_page --name {wildcards.dataset} --stamps {input.stamps}"
        " --quality {input.quality} --arc-light {input.arc_light} --negatives {input.negatives}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_errors_page:
    input:
        errors="results/{generation}/errors.csv",
        realism="results/{generation}/realism.json",
        packed=gate_data("packed"),
        cutouts="results/anchors/cutouts.json",
        code=code("dark_halo_scope.paper.errors_page", "figures"),
    output:
        "results/{generation}/errors.png",
        "results/{generation}/errors.pdf",
    log:
        "logs/figure_errors_page/{generation}.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=settings("generation", "errors_page"),
    message:
        "Drawing the worst errors of {wildcards.generation}"
    shell:
        "exec python -m dark_halo_scope.paper.errors_page --errors {input.errors} --realism {input.realism}"
        " --packed {input.packed} --cutouts {input.cutouts} --settings {params.settings:q}"
        " --output {output} 2> >(tee {log} >&2)"


rule table_generations:
    input:
        gates=expand(
            "results/{generation}/gates.json", generation=CONFIG.main_generations
        ),
        models=trained_stages(CONFIG.main_generations, "best"),
        histories=trained_stages(CONFIG.main_generations, "history"),
        code=code("dark_halo_scope.paper.generation_table", "figures"),
    output:
        report(
            "results/generations.csv",
            caption="../workflow/report/table_generations.rst",
            category="Generations",
            labels={"what": "all generations"},
        ),
        "results/generations.md",
    log:
        "logs/table_generations.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        settings=CONFIG.table_settings(CONFIG.main_generations),
    message:
        "Putting every generation into one table"
    shell:
        "exec python -m dark_halo_scope.paper.generation_table --gates {input.gates} --models {input.models}"
        " --histories {input.histories} --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule table_ablations:
    input:
        gates=expand("results/{generation}/gates.json", generation=CONFIG.ablations),
        scores=ablation_scores(),
        code=code("dark_halo_scope.paper.ablation_table", "figures"),
    output:
        "results/ablations.csv",
        "results/ablations.md",
    log:
        "logs/table_ablations.log",
    benchmark:
        "benchmarks/table_ablations.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=CONFIG.table_settings(CONFIG.ablations),
    message:
        "Putting the ablations and how far each lies from the base into one table"
    shell:
        "exec python -m dark_halo_scope.paper.ablation_table --gates {input.gates} --scores {input.scores}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_paper_examples:
    input:
        packed=paper_data("packed"),
        code=code("dark_halo_scope.paper.training_examples", "figures"),
    output:
        report(
            "results/paper/figures/training_examples.png",
            caption="../workflow/report/figure_training_examples.rst",
            category="Paper",
            labels={"what": "figure 1", "shows": "training examples"},
        ),
        "results/paper/figures/training_examples.pdf",
    log:
        "logs/figure_paper_examples.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("survey", "figure_training_examples"),
        min_arc_snr=CONFIG.survey.figure_training_examples.min_arc_snr,
    message:
        "Drawing figure 1: positives, their controls and their hard negatives"
    shell:
        "exec python -m dark_halo_scope.paper.training_examples --packed {input.packed}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_six_channels:
    input:
        packed=paper_data("packed"),
        model=paper_model(),
        code=code("dark_halo_scope.paper.six_channels", "train"),
    output:
        report(
            "results/paper/figures/six_channels.png",
            caption="../workflow/report/figure_six_channels.rst",
            category="Paper",
            labels={"what": "figure 2", "shows": "channels of the network"},
        ),
        "results/paper/figures/six_channels.pdf",
    log:
        "logs/figure_six_channels.log",
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=settings("survey", "figure_six_channels"),
        preprocessing=paper_preprocessing(),
    message:
        "Drawing figure 2: what the network gets"
    shell:
        "exec python -m dark_halo_scope.paper.six_channels --packed {input.packed} --model {input.model}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_gates:
    input:
        gates=expand(
            "results/{generation}/gates.json", generation=CONFIG.gated_in_paper
        ),
        code=code("dark_halo_scope.paper.gate_figure", "figures"),
    output:
        report(
            "results/paper/figures/gates.png",
            caption="../workflow/report/figure_gates.rst",
            category="Paper",
            labels={"what": "figure 3", "shows": "gates by stratum"},
        ),
        "results/paper/figures/gates.pdf",
    log:
        "logs/figure_gates.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("survey", "figure_gates"),
        thresholds=gate_thresholds(),
        generations=", ".join(CONFIG.gated_in_paper),
    message:
        "Drawing figure 3: gates of every generation by stratum"
    shell:
        "exec python -m dark_halo_scope.paper.gate_figure --gates {input.gates}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_roc:
    input:
        performance=expand(
            "results/{generation}/performance.json",
            generation=CONFIG.survey.paper.roc_of,
        ),
        anchors=expand(
            "results/{generation}/anchors.csv", generation=CONFIG.survey.paper.roc_of
        ),
        code=code("dark_halo_scope.paper.roc_figure", "figures"),
    output:
        report(
            "results/paper/figures/roc.png",
            caption="../workflow/report/figure_roc.rst",
            category="Paper",
            labels={"what": "figure 4", "shows": "ROC curves"},
        ),
        "results/paper/figures/roc.pdf",
    log:
        "logs/figure_roc.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("survey", "figure_roc"),
        min_false_positives=CONFIG.survey.figure_roc.min_false_positives,
        confidence=CONFIG.survey.figure_roc.confidence,
    message:
        "Drawing figure 4: ROC curves of injections and known lenses"
    shell:
        "exec python -m dark_halo_scope.paper.roc_figure --performance {input.performance} --anchors {input.anchors}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_anchor_gallery:
    input:
        anchors=paper_result("anchors.csv"),
        cutouts="results/anchors/cutouts.json",
        code=code("dark_halo_scope.paper.anchor_gallery", "figures"),
    output:
        report(
            "results/paper/figures/anchor_gallery.png",
            caption="../workflow/report/figure_anchor_gallery.rst",
            category="Paper",
            labels={"what": "figure 5", "shows": "known lenses"},
        ),
        "results/paper/figures/anchor_gallery.pdf",
    log:
        "logs/figure_anchor_gallery.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("survey", "figure_anchor_gallery"),
        threshold=CONFIG.survey.figure_anchor_gallery.threshold,
        first=CONFIG.survey.figure_anchor_gallery.first,
        tier=CONFIG.survey.figure_anchor_gallery.tier,
    message:
        "Drawing figure 5: known lenses, found and missed"
    shell:
        "exec python -m dark_halo_scope.paper.anchor_gallery --anchors {input.anchors} --cutouts {input.cutouts}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_selection_function:
    input:
        completeness=paper_result("completeness.csv"),
        surface=paper_result("completeness_surface.csv"),
        code=code("dark_halo_scope.paper.selection_figure", "figures"),
    output:
        report(
            "results/paper/figures/selection_function.png",
            caption="../workflow/report/figure_selection_function.rst",
            category="Paper",
            labels={"what": "figure 6", "shows": "selection function"},
        ),
        "results/paper/figures/selection_function.pdf",
    log:
        "logs/figure_selection_function.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("survey", "figure_selection_function"),
        threshold=CONFIG.survey.figure_selection_function.threshold,
    message:
        "Drawing figure 6: completeness over Einstein radius and redshift"
    shell:
        "exec python -m dark_halo_scope.paper.selection_figure --completeness {input.completeness} --surface {input.surface}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule write_paper:
    input:
        template=in_checkout("workflow/paper/paper.tex"),
        bibliography=in_checkout("workflow/paper/references.bib"),
        numbers="results/paper/key_numbers.tex",
        survey="results/survey.json",
        code=code("dark_halo_scope.paper.write_paper", "figures"),
    output:
        "results/paper/paper.tex",
        "results/paper/references.bib",
    log:
        "logs/write_paper.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    message:
        "Writing the LaTeX of the paper"
    shell:
        "exec python -m dark_halo_scope.paper.write_paper --template {input.template}"
        " --bibliography {input.bibliography} --key-numbers {input.numbers} --survey {input.survey}"
        " --output {output} 2> >(tee {log} >&2)"


rule compile_paper:
    input:
        paper="results/paper/paper.tex",
        beside=[
            "results/paper/references.bib",
            "results/paper/key_numbers.tex",
            *paper_figure_files("pdf"),
            *paper_table_files("tex"),
        ],
        code=code("dark_halo_scope.paper.compile_paper", "figures"),
    output:
        report(
            "results/paper/paper.pdf",
            caption="../workflow/report/paper.rst",
            category="Paper",
            labels={"what": "the paper", "shows": "figures and tables"},
        ),
    log:
        "logs/compile_paper.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Compiling the paper, which needs LaTeX on this machine"
    shell:
        "exec python -m dark_halo_scope.paper.compile_paper --paper {input.paper}"
        " --output {output} 2> >(tee {log} >&2)"
