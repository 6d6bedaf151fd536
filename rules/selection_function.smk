rule measure_selection_function:
    input:
        recovery="results/{generation}/recovery.json",
        frozen="results/{generation}/frozen.json",
        model=deployed_model,
        parent="results/catalogue/parent.json",
        survey="results/survey.json",
        code=code("dark_halo_scope.evaluation.measure_selection_function", "train"),
    output:
        json="results/{generation}/selection_function.json",
        parquet="results/{generation}/selection_function.parquet",
        fits="results/{generation}/selection_function.fits",
        cells="results/{generation}/selection_cells.csv",
        surface="results/{generation}/selection_surface.csv",
    log:
        "logs/measure_selection_function/{generation}.log",
    benchmark:
        "benchmarks/measure_selection_function/{generation}.tsv"
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        settings=settings("generation", "selection_function"),
    message:
        "Measuring the selection function of {wildcards.generation}, which is frozen"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_selection_function --recovery {input.recovery}"
        " --frozen {input.frozen} --model {input.model} --parent {input.parent} --survey {input.survey}"
        " --settings {params.settings:q} --output {output.json} --parquet {output.parquet} --fits {output.fits}"
        " --cells {output.cells} --surface {output.surface} 2> >(tee {log} >&2)"


rule figure_finder_selection:
    input:
        cells="results/{generation}/selection_cells.csv",
        surface="results/{generation}/selection_surface.csv",
        code=code("dark_halo_scope.paper.selection_figure", "figures"),
    output:
        report(
            "results/{generation}/selection_function.png",
            caption="../workflow/report/figure_selection_function.rst",
            category="Finders of real images",
            labels={"what": "{generation}", "shows": "selection function"},
        ),
        "results/{generation}/selection_function.pdf",
    log:
        "logs/figure_finder_selection/{generation}.log",
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("generation", "figure_selection_function"),
        threshold=shown_threshold("figure_selection_function"),
    message:
        "Drawing the selection function of {wildcards.generation}"
    shell:
        "exec python -m dark_halo_scope.paper.selection_figure --completeness {input.cells} --surface {input.surface}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_ladder:
    input:
        ladder="results/{generation}/ladder.json",
        code=code("dark_halo_scope.paper.ladder_figure", "figures"),
    output:
        report(
            "results/{generation}/ladder.png",
            caption="../workflow/report/figure_ladder.rst",
            category="Finders of real images",
            labels={"what": "{generation}", "shows": "realism of injections"},
        ),
        "results/{generation}/ladder.pdf",
    log:
        "logs/figure_ladder/{generation}.log",
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("generation", "figure_ladder"),
        threshold=shown_threshold("figure_ladder"),
        arc_snr=compared_arcs,
    message:
        "Drawing the realism ladder of {wildcards.generation}"
    shell:
        "exec python -m dark_halo_scope.paper.ladder_figure --ladder {input.ladder}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
